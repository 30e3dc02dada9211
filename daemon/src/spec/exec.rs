//! The program of an exec: what the request says, over what its container has.

use littlebox_plan::capability::{self, ALL_MASK};
use littlebox_protocol::{SeccompPlan, TerminalSize, UserPlan};
use littlebox_types::{CapabilityChange, ContainerConfig, ExecConfig};
use oci_spec::runtime::Process;

use super::log::{LogSettings, for_exec};
use super::{
    ConfigError, SpecContext, bundle, check, host_name, labels, namespaces, process, seccomp,
};

/// An exec's configuration that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedExec {
    /// The OCI process object.
    pub process: Process,
    /// Who runs it; names are resolved in the container.
    pub user: UserPlan,
    /// The terminal's first size; `None` without a terminal.
    pub terminal_size: Option<TerminalSize>,
    /// Bounds of its output: one file of so many bytes (`max_size`), `None` for no bound.
    pub log: LogSettings,
    /// Killed after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// Make the working directory when it is missing (never for an exec: it must be there).
    pub create_cwd: bool,
    /// The seccomp filter; `None`: none.
    pub seccomp: Option<SeccompPlan>,
}

/// The most that a request may give an exec to read.
const INPUT_LIMIT: usize = 1024 * 1024;

/// Checks an exec's configuration against its container's and makes its OCI process object.
///
/// # Errors
/// The first value that is wrong, by its JSON pointer into the exec's body.
pub fn exec_process(
    config: &ExecConfig,
    container: &ContainerConfig,
    ctx: &SpecContext<'_>,
) -> Result<PreparedExec, ConfigError> {
    check::command(&config.command, "/command")?;
    check_input(config)?;
    let base = match bundle::process_of(container)? {
        Some((process, seccomp)) => over_spec(config, process, seccomp)?,
        None => over_config(config, container, ctx)?,
    };
    let Base {
        mut process,
        user,
        seccomp,
    } = base;
    process.set_user(process::spec_user(&user));
    process.set_args(Some(config.command.clone()));
    process.set_terminal(Some(config.terminal));
    Ok(PreparedExec {
        process,
        user,
        terminal_size: process::terminal_size(config.terminal, config.terminal_size),
        log: for_exec(config)?,
        timeout_ms: config.timeout_ms,
        create_cwd: false,
        seccomp,
    })
}

/// What an exec takes from its container, changed as the request says.
struct Base {
    process: Process,
    user: UserPlan,
    seccomp: Option<SeccompPlan>,
}

/// In a container that a configuration describes.
fn over_config(
    config: &ExecConfig,
    container: &ContainerConfig,
    ctx: &SpecContext<'_>,
) -> Result<Base, ConfigError> {
    let user = changed_user(process::user_plan(container)?, config);
    let capabilities = if config.privileged {
        ALL_MASK
    } else {
        process::container_capabilities(container)?
    };
    let capabilities = process::change(capabilities, &config.capabilities)?;
    let cwd = config
        .working_dir
        .as_deref()
        .or(container.working_dir.as_deref());
    let (hostname, _) = host_name::for_spec(container, ctx, &namespaces::sources(container)?)?;
    let env = process::env(
        hostname.as_deref(),
        config.terminal,
        &[&container.env, &config.env],
    )?;

    let mut process = Process::default();
    process.set_env(Some(env));
    process.set_cwd(process::cwd(cwd)?);
    process.set_capabilities(Some(process::spec_capabilities(capabilities)));
    process.set_rlimits(Some(process::rlimits(&container.rlimits)?));
    process.set_no_new_privileges(Some(container.no_new_privileges.unwrap_or(true)));
    process.set_oom_score_adj(process::oom_score_adj(container)?);
    labels::set(&mut process, container)?;
    let seccomp = if config.privileged {
        None
    } else {
        seccomp::filter(container, capabilities, ctx.seccomp)?
    };
    Ok(Base {
        process,
        user,
        seccomp,
    })
}

/// In a container that a spec describes: as the spec's own process.
fn over_spec(
    config: &ExecConfig,
    mut process: Process,
    seccomp: Option<SeccompPlan>,
) -> Result<Base, ConfigError> {
    let user = changed_user(bundle::user(process.user()), config);
    let mut env = process.env().clone().unwrap_or_default();
    for (key, value) in &config.env {
        check::variable(key, value)?;
        let name = format!("{key}=");
        env.retain(|entry| !entry.starts_with(&name));
        env.push(format!("{key}={value}"));
    }
    process.set_env(Some(env));
    if let Some(dir) = &config.working_dir {
        process.set_cwd(process::cwd(Some(dir))?);
    }
    if config.privileged || config.capabilities != CapabilityChange::default() {
        let capabilities = if config.privileged {
            ALL_MASK
        } else {
            capability::plan(process.capabilities().as_ref()).bounding
        };
        let capabilities = process::change(capabilities, &config.capabilities)?;
        process.set_capabilities(Some(process::spec_capabilities(capabilities)));
    }
    process.set_console_size(None);
    Ok(Base {
        process,
        user,
        seccomp: seccomp.filter(|_| !config.privileged),
    })
}

fn changed_user(mut user: UserPlan, config: &ExecConfig) -> UserPlan {
    if let Some(asked) = &config.user {
        (user.user, user.group) = process::user_and_group(asked);
    }
    user
}

fn check_input(config: &ExecConfig) -> Result<(), ConfigError> {
    if config.timeout_ms == Some(0) {
        return Err(check::error_with(
            "/timeout_ms",
            "a program cannot end in 0 milliseconds",
            "leave it out for no limit",
        ));
    }
    match &config.input {
        Some(_) if config.stdin => Err(check::error_with(
            "/input",
            "input and stdin exclude each other",
            "leave out input and write to the attached stream instead, or set stdin to false",
        )),
        Some(input) if input.len() > INPUT_LIMIT => Err(check::error_with(
            "/input",
            format!(
                "the input has {} bytes, at most {INPUT_LIMIT} are taken",
                input.len()
            ),
            "set stdin and write to the attached stream instead",
        )),
        _ => Ok(()),
    }
}
