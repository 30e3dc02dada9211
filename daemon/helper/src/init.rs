//! littlebox's own PID 1: forwards signals, reaps, ends as the program ends.
