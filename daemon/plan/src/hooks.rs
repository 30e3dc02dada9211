//! Hooks of a spec (OCI config.md, "POSIX-platform Hooks").

use littlebox_protocol::{HookPlan, HooksPlan};
use oci_spec::runtime::{Hook, Hooks};

use crate::PlanError;

/// A list of hooks by its name in a spec.
type Named<'s> = (&'static str, &'s Option<Vec<Hook>>);

/// The names of the lists, in the order of a container's life.
pub const NAMES: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

fn lists(hooks: &Hooks) -> [Named<'_>; 6] {
    let [a, b, c, d, e, f] = NAMES;
    [
        (a, hooks.prestart()),
        (b, hooks.create_runtime()),
        (c, hooks.create_container()),
        (d, hooks.start_container()),
        (e, hooks.poststart()),
        (f, hooks.poststop()),
    ]
}

/// Refuses every hook: a client of the daemon names programs of its container, not of the host.
pub(crate) fn refuse(hooks: &Hooks) -> Result<(), PlanError> {
    let filled = |(_, list): &Named<'_>| list.as_ref().is_some_and(|list| !list.is_empty());
    match lists(hooks).into_iter().find(filled) {
        None => Ok(()),
        Some((name, _)) => Err(PlanError::new(
            format!("/hooks/{name}"),
            "hooks run programs on the host, which the API does not do; use littlebox-runtime",
        )),
    }
}

/// Plans the hooks.
pub(crate) fn plan(hooks: Option<&Hooks>) -> Result<HooksPlan, PlanError> {
    let Some(hooks) = hooks else {
        return Ok(HooksPlan::default());
    };
    let [a, b, c, d, e, f] = lists(hooks);
    Ok(HooksPlan {
        prestart: list(a)?,
        create_runtime: list(b)?,
        create_container: list(c)?,
        start_container: list(d)?,
        poststart: list(e)?,
        poststop: list(f)?,
    })
}

fn list((name, hooks): Named<'_>) -> Result<Vec<HookPlan>, PlanError> {
    let hooks = hooks.as_deref().unwrap_or_default();
    hooks
        .iter()
        .enumerate()
        .map(|(i, hook)| one(hook, &format!("/hooks/{name}/{i}")))
        .collect()
}

fn one(hook: &Hook, at: &str) -> Result<HookPlan, PlanError> {
    let bytes = hook.path().as_os_str().as_encoded_bytes();
    if !hook.path().is_absolute() || bytes.contains(&0) {
        return Err(PlanError::new(
            format!("{at}/path"),
            "a hook's path is absolute, without a zero byte",
        ));
    }
    let strings = |list: &Option<Vec<String>>, field: &str| {
        let list = list.clone().unwrap_or_default();
        match list.iter().position(|entry| entry.contains('\0')) {
            None => Ok(list),
            Some(i) => Err(PlanError::new(
                format!("{at}/{field}/{i}"),
                "a zero byte cannot be passed on",
            )),
        }
    };
    let timeout_s = match hook.timeout().map(u64::try_from) {
        None => None,
        Some(Ok(seconds)) if seconds > 0 => Some(seconds),
        Some(_) => {
            return Err(PlanError::new(
                format!("{at}/timeout"),
                "a timeout is a number of seconds above zero",
            ));
        }
    };
    let env = match hook.env() {
        Some(_) => Some(strings(hook.env(), "env")?),
        None => None,
    };
    if let Some(i) = env
        .iter()
        .flatten()
        .position(|e| e.find('=').is_none_or(|at| at == 0))
    {
        return Err(PlanError::new(
            format!("{at}/env/{i}"),
            "an environment entry is KEY=VALUE",
        ));
    }
    Ok(HookPlan {
        path: hook.path().clone(),
        args: strings(hook.args(), "args")?,
        env,
        timeout_s,
    })
}
