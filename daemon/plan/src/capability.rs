//! Part of the planner.
