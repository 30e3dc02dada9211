//! Compiled once per profile and set of capabilities.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use littlebox_protocol::SeccompPlan;
use serde_json::Value;

use super::{Arch, DEFAULT_PROFILE, Profile, Target, compile};
use crate::PlanError;

/// Filters that are remembered; more than a daemon has different containers.
const CAPACITY: usize = 64;

/// Compiles for one machine.
#[derive(Debug)]
pub struct Compiler {
    default: Profile,
    kernel: (u32, u32),
    compiled: Mutex<HashMap<Key, SeccompPlan>>,
}

/// A profile, and the capabilities that it was compiled for.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    /// `None`: the default one.
    profile: Option<String>,
    capabilities: u64,
}

impl Compiler {
    /// With littlebox's own default profile.
    pub fn new(kernel: (u32, u32)) -> Self {
        let default = serde_json::from_str(DEFAULT_PROFILE)
            .ok()
            .and_then(|json| Profile::read(&json).ok())
            .expect("the default profile is read by a test");
        Self::with_default(default, kernel)
    }

    /// With another default profile.
    pub fn with_default(default: Profile, kernel: (u32, u32)) -> Self {
        Self {
            default,
            kernel,
            compiled: Mutex::default(),
        }
    }

    /// The default profile's filter for a program with these capabilities.
    ///
    /// # Errors
    /// As [`super::compile`]; never with littlebox's own profile.
    pub fn default_filter(&self, capabilities: u64) -> Result<SeccompPlan, PlanError> {
        let key = Key {
            profile: None,
            capabilities,
        };
        self.remembered(key, || {
            compile(&self.default, &self.target(capabilities), "default")
        })
    }

    /// The filter of a given profile.
    ///
    /// # Errors
    /// The first field that is wrong, by its JSON pointer into the profile; or as
    /// [`super::compile`].
    pub fn filter(&self, profile: &Value, capabilities: u64) -> Result<SeccompPlan, PlanError> {
        let key = Key {
            profile: Some(profile.to_string()),
            capabilities,
        };
        self.remembered(key, || {
            let profile = Profile::read(profile)?;
            compile(&profile, &self.target(capabilities), "its own")
        })
    }

    fn target(&self, capabilities: u64) -> Target {
        Target {
            arch: Arch::NATIVE,
            capabilities,
            kernel: self.kernel,
        }
    }

    fn remembered(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<SeccompPlan, PlanError>,
    ) -> Result<SeccompPlan, PlanError> {
        if let Some(plan) = self.compiled().get(&key) {
            return Ok(plan.clone());
        }
        let plan = make()?;
        let mut compiled = self.compiled();
        if compiled.len() >= CAPACITY {
            compiled.clear();
        }
        compiled.insert(key, plan.clone());
        Ok(plan)
    }

    fn compiled(&self) -> MutexGuard<'_, HashMap<Key, SeccompPlan>> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
