//! A seccomp profile, read from the JSON of the OCI specification (config-linux.md, "Seccomp") or
//! from the richer one that Docker and Podman take.
//!
//! Unknown fields are errors: a misspelt `defaultErrnoRet` must not become a weaker filter in
//! silence. `null` is as good as absent, because the tools of the field write it.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::arch::{Arch, Named};
use super::errno;
use crate::{PlanError, capability, pointer};

/// A profile that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What happens to a call that no rule names.
    pub(super) default: Action,
    /// Architectures beside the native one that are let in.
    pub(super) guests: Vec<Arch>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(super) flags: u32,
    /// The seccomp agent, where one is named.
    pub(super) listener: Option<Listener>,
    /// In the order of the text.
    pub(super) rules: Vec<Rule>,
}

/// Who decides about calls with [`Action::Notify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    /// Its socket on the host.
    pub(super) path: PathBuf,
    pub(super) metadata: Option<String>,
}

/// What happens to a call (seccomp(2), "Return values").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    KillProcess,
    KillThread,
    Trap,
    Errno(u16),
    Trace(u16),
    /// A process of the host decides.
    Notify,
    Log,
    Allow,
}

impl Action {
    /// `SECCOMP_RET_*` with its data.
    pub(super) fn code(self) -> u32 {
        match self {
            Action::KillProcess => 0x8000_0000,
            Action::KillThread => 0,
            Action::Trap => 0x0003_0000,
            Action::Errno(n) => 0x0005_0000 | u32::from(n),
            Action::Notify => 0x7fc0_0000,
            Action::Trace(n) => 0x7ff0_0000 | u32::from(n),
            Action::Log => 0x7ffc_0000,
            Action::Allow => 0x7fff_0000,
        }
    }

    /// Whether a call is kept from being made.
    pub(super) fn denies(self) -> bool {
        match self {
            Action::KillProcess | Action::KillThread | Action::Trap | Action::Errno(_) => true,
            Action::Trace(_) | Action::Notify | Action::Log | Action::Allow => false,
        }
    }
}

/// One entry of `syscalls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    /// All must hold; but where several are about one argument, one is enough.
    pub(super) conditions: Vec<Condition>,
    /// Every part must fit.
    pub(super) includes: Circumstances,
    /// No part may fit.
    pub(super) excludes: Circumstances,
}

/// `includes` or `excludes`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// Mask of capabilities.
    pub(super) capabilities: u64,
    pub(super) arches: Vec<String>,
    pub(super) min_kernel: Option<(u32, u32)>,
}

/// One entry of `args`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) index: u8,
    pub(super) op: Op,
    /// What is compared with; for `MaskedEq` the mask.
    pub(super) value: u64,
    /// For `MaskedEq` what the masked argument is to be.
    pub(super) value_two: u64,
}

/// `SCMP_CMP_*`; all compare 64 bits without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    MaskedEq,
}

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (Linux 5.19).
pub(super) const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The flags of a profile, and their bits (`linux/seccomp.h`).
pub const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE_RECV),
];

/// EPERM, what the specification says when a profile does not.
const DEFAULT_ERRNO: u16 = 1;
/// The kernel's `MAX_ERRNO`; a greater one would be cut.
const MAX_ERRNO: u16 = 4095;
/// More than any machine has; keeps a request from being expensive.
const MAX_RULES: usize = 4096;
const MAX_NAMES: usize = 2048;

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// The first field that is wrong, by its JSON pointer into the profile.
    pub fn read(json: &Value) -> Result<Self, PlanError> {
        let root = At::root(json);
        root.object(&[
            "defaultAction",
            "defaultErrnoRet",
            "defaultErrno",
            "archMap",
            "architectures",
            "flags",
            "listenerPath",
            "listenerMetadata",
            "syscalls",
            "comment",
        ])?;
        let Some(default) = root.get("defaultAction") else {
            return Err(root.error_at("defaultAction", "a profile needs a defaultAction"));
        };
        check_arch_map(&root)?;
        let syscalls = root.list("syscalls")?;
        if syscalls.len() > MAX_RULES {
            return Err(root.error_at("syscalls", format!("more than {MAX_RULES} rules")));
        }
        Ok(Self {
            default: action(&root, &default, "defaultErrnoRet", "defaultErrno")?,
            guests: guests(&root)?,
            flags: flags(&root)?,
            listener: listener(&root)?,
            rules: syscalls.iter().map(rule).collect::<Result<_, _>>()?,
        })
    }
}

fn listener(root: &At<'_>) -> Result<Option<Listener>, PlanError> {
    let given = |name| match root.get(name) {
        Some(at) if at.text()?.is_empty() => Ok(None),
        other => Ok(other),
    };
    let (path, metadata) = (given("listenerPath")?, given("listenerMetadata")?);
    let Some(path) = path else {
        return match metadata {
            None => Ok(None),
            Some(at) => Err(at.error("listenerMetadata is for the agent that listenerPath names")),
        };
    };
    let text = path.text()?;
    if !text.starts_with('/') || text.contains('\0') {
        return Err(path.error("listenerPath is the absolute path of a UNIX socket"));
    }
    Ok(Some(Listener {
        path: text.into(),
        metadata: metadata.map(|at| Ok(at.text()?.to_owned())).transpose()?,
    }))
}

/// Docker's list of what runs on which machine. It is no wish: each profile has the same one for
/// all machines. Other architectures than the native one are let in by `architectures`.
fn check_arch_map(root: &At<'_>) -> Result<(), PlanError> {
    for entry in root.list("archMap")? {
        entry.object(&["architecture", "subArchitectures"])?;
        let Some(main) = entry.get("architecture") else {
            return Err(entry.error_at("architecture", "an entry of archMap needs an architecture"));
        };
        arch(&main)?;
        for sub in entry.list("subArchitectures")? {
            arch(&sub)?;
        }
    }
    Ok(())
}

fn guests(root: &At<'_>) -> Result<Vec<Arch>, PlanError> {
    let mut guests = Vec::new();
    for at in root.list("architectures")? {
        if let Named::Arch(arch) = arch(&at)?
            && !guests.contains(&arch)
        {
            guests.push(arch);
        }
    }
    Ok(guests)
}

fn arch(at: &At<'_>) -> Result<Named, PlanError> {
    let name = at.text()?;
    Arch::from_profile(name).ok_or_else(|| {
        at.error(format!(
            "{} is not an architecture like SCMP_ARCH_X86_64",
            shown(name)
        ))
    })
}

fn flags(root: &At<'_>) -> Result<u32, PlanError> {
    let mut flags = 0;
    for at in root.list("flags")? {
        let name = at.text()?;
        let Some((_, bit)) = FLAGS.iter().find(|(known, _)| *known == name) else {
            return Err(at.error(format!(
                "{} is not a flag; SECCOMP_FILTER_FLAG_ LOG, SPEC_ALLOW, TSYNC and WAIT_KILLABLE_RECV are",
                shown(name)
            )));
        };
        flags |= bit;
    }
    Ok(flags)
}

fn rule(at: &At<'_>) -> Result<Rule, PlanError> {
    at.object(&[
        "names", "name", "action", "errnoRet", "errno", "args", "includes", "excludes", "comment",
    ])?;
    let Some(act) = at.get("action") else {
        return Err(at.error_at("action", "a rule needs an action"));
    };
    let circumstances = |name| {
        let found = at.get(name);
        found.map_or(Ok(Circumstances::default()), |found| circumstances(&found))
    };
    Ok(Rule {
        names: names(at)?,
        action: action(at, &act, "errnoRet", "errno")?,
        conditions: at
            .list("args")?
            .iter()
            .map(condition)
            .collect::<Result<_, _>>()?,
        includes: circumstances("includes")?,
        excludes: circumstances("excludes")?,
    })
}

fn names(rule: &At<'_>) -> Result<Vec<String>, PlanError> {
    let list = rule.list("names")?;
    if list.len() > MAX_NAMES {
        return Err(rule.error_at("names", format!("more than {MAX_NAMES} names")));
    }
    let single = rule.get("name");
    if single.is_some() && !list.is_empty() {
        return Err(rule.error_at("name", "a rule has either name or names"));
    }
    if single.is_none() && list.is_empty() {
        return Err(rule.error_at("names", "a rule names at least one system call"));
    }
    list.iter()
        .chain(&single)
        .map(|at| match at.text()? {
            "" => Err(at.error("the name of a system call is empty")),
            name => Ok(name.to_owned()),
        })
        .collect()
}

/// The action at `at`, with the errno of the fields beside it: a number, or as Podman writes it a
/// name, which comes first.
fn action(beside: &At<'_>, at: &At<'_>, number: &str, name: &str) -> Result<Action, PlanError> {
    let text = at.text()?;
    let given = match beside.get(name) {
        Some(named) if !named.text()?.is_empty() => Some((named.errno_name()?, named)),
        _ => match beside.get(number) {
            Some(at) => Some((at.errno()?, at)),
            None => None,
        },
    };
    let errno = given.as_ref().map_or(DEFAULT_ERRNO, |(errno, _)| *errno);
    let action = match text {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_ERRNO" => Action::Errno(errno),
        "SCMP_ACT_TRACE" => Action::Trace(errno),
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => Action::Notify,
        other => {
            return Err(at.error(format!(
                "{} is not an action like SCMP_ACT_ERRNO",
                shown(other)
            )));
        }
    };
    match (action, given) {
        (Action::Errno(_) | Action::Trace(_), _) | (_, None) => Ok(action),
        (_, Some((_, at))) => Err(at.error(format!("{text} returns no errno"))),
    }
}

fn condition(at: &At<'_>) -> Result<Condition, PlanError> {
    at.object(&["index", "value", "valueTwo", "op"])?;
    let needed = |name: &str| {
        at.get(name)
            .ok_or_else(|| at.error_at(name, format!("an argument's condition needs {name}")))
    };
    let index = needed("index")?;
    let op = needed("op")?;
    Ok(Condition {
        index: index.up_to(5, "arguments are counted from 0 to 5")?,
        op: match op.text()? {
            "SCMP_CMP_NE" => Op::Ne,
            "SCMP_CMP_LT" => Op::Lt,
            "SCMP_CMP_LE" => Op::Le,
            "SCMP_CMP_EQ" => Op::Eq,
            "SCMP_CMP_GE" => Op::Ge,
            "SCMP_CMP_GT" => Op::Gt,
            "SCMP_CMP_MASKED_EQ" => Op::MaskedEq,
            other => {
                return Err(op.error(format!(
                    "{} is not an operator like SCMP_CMP_EQ",
                    shown(other)
                )));
            }
        },
        value: needed("value")?.number()?,
        value_two: at.get("valueTwo").map_or(Ok(0), |at| at.number())?,
    })
}

fn circumstances(at: &At<'_>) -> Result<Circumstances, PlanError> {
    at.object(&["caps", "arches", "minKernel"])?;
    let mut found = Circumstances::default();
    for cap in at.list("caps")? {
        let name = cap.text()?;
        let number = capability::number(name)
            .ok_or_else(|| cap.error(format!("{} is not a capability", shown(name))))?;
        found.capabilities |= 1 << number;
    }
    for arch in at.list("arches")? {
        found.arches.push(arch.text()?.to_owned());
    }
    if let Some(kernel) = at.get("minKernel")
        && !kernel.text()?.is_empty()
    {
        found.min_kernel = Some(
            super::kernel_version(kernel.text()?)
                .ok_or_else(|| kernel.error("a kernel version is written like \"4.8\""))?,
        );
    }
    Ok(found)
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("'{}'", short.escape_debug())
}

/// A value and where it stands.
struct At<'a> {
    value: &'a Value,
    pointer: String,
}

impl<'a> At<'a> {
    fn root(value: &'a Value) -> Self {
        Self {
            value,
            pointer: String::new(),
        }
    }

    fn error(&self, message: impl Into<String>) -> PlanError {
        PlanError::new(self.pointer.clone(), message)
    }

    fn error_at(&self, field: &str, message: impl Into<String>) -> PlanError {
        PlanError::new(pointer::below(&self.pointer, field), message)
    }

    /// An object without other fields than these.
    fn object(&self, known: &[&str]) -> Result<&'a Map<String, Value>, PlanError> {
        let Value::Object(map) = self.value else {
            return Err(self.error("an object is needed here"));
        };
        match map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(self.error_at(key, "there is no such field in a seccomp profile")),
            None => Ok(map),
        }
    }

    fn get(&self, field: &str) -> Option<At<'a>> {
        let value = self.value.get(field).filter(|value| !value.is_null())?;
        Some(At {
            value,
            pointer: format!("{}/{field}", self.pointer),
        })
    }

    /// A list, empty when absent.
    fn list(&self, field: &str) -> Result<Vec<At<'a>>, PlanError> {
        let Some(at) = self.get(field) else {
            return Ok(Vec::new());
        };
        let Value::Array(items) = at.value else {
            return Err(at.error("a list is needed here"));
        };
        let item = |(i, value)| At {
            value,
            pointer: format!("{}/{i}", at.pointer),
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    fn text(&self) -> Result<&'a str, PlanError> {
        self.value
            .as_str()
            .ok_or_else(|| self.error("a text is needed here"))
    }

    fn number(&self) -> Result<u64, PlanError> {
        self.value
            .as_u64()
            .ok_or_else(|| self.error("a number from 0 to 18446744073709551615 is needed here"))
    }

    fn errno(&self) -> Result<u16, PlanError> {
        self.up_to(MAX_ERRNO, "an errno is at most 4095")
    }

    /// A number that is at most `most`; what is wrong with others.
    fn up_to<N: TryFrom<u64> + PartialOrd>(&self, most: N, wrong: &str) -> Result<N, PlanError> {
        let number = self.number()?;
        let fits = N::try_from(number).ok().filter(|n| *n <= most);
        fits.ok_or_else(|| self.error(format!("{wrong}, not {number}")))
    }

    fn errno_name(&self) -> Result<u16, PlanError> {
        let name = self.text()?;
        errno::number(name)
            .ok_or_else(|| self.error(format!("{} is not an errno like EPERM", shown(name))))
    }
}
