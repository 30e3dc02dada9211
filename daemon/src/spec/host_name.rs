//! Host and NIS domain name.

use littlebox_protocol::NamespaceKind;
use littlebox_types::{ContainerConfig, ContainerId};

use super::namespaces::{Sources, is_new};
use super::{ConfigError, SpecContext, check};

/// Host and NIS domain name, which only a new UTS namespace takes.
pub(super) fn for_spec(
    config: &ContainerConfig,
    ctx: &SpecContext<'_>,
    sources: &Sources,
) -> Result<(Option<String>, Option<String>), ConfigError> {
    if let Some(name) = &config.hostname {
        check::host_name(name, "/hostname")?;
    }
    if let Some(name) = &config.domainname {
        check::host_name(name, "/domainname")?;
    }
    if !is_new(sources, NamespaceKind::Uts) {
        return Ok((None, None));
    }
    let hostname = config
        .hostname
        .clone()
        .unwrap_or_else(|| default_hostname(ctx.id));
    Ok((Some(hostname), config.domainname.clone()))
}

/// The last 12 hex digits of the id: the random ones, which tell containers apart.
fn default_hostname(id: &ContainerId) -> String {
    let digits = id.0.simple().to_string();
    digits.get(20..).unwrap_or(&digits).to_owned()
}
