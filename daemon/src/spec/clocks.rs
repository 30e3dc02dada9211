//! The clocks of a time namespace.

use std::collections::HashMap;

use littlebox_protocol::NamespaceKind;
use littlebox_types::{ContainerConfig, TimeOffset};
use oci_spec::runtime::LinuxTimeOffset;

use super::ConfigError;
use super::check::{error, error_with};
use super::namespaces::{Sources, is_new};

/// The offsets that were asked for, by the spec's names of the clocks.
pub(super) fn for_spec(
    config: &ContainerConfig,
    sources: &Sources,
) -> Result<Option<HashMap<String, LinuxTimeOffset>>, ConfigError> {
    let Some(offsets) = config.time_offsets else {
        return Ok(None);
    };
    if !is_new(sources, NamespaceKind::Time) {
        return Err(error_with(
            "/time_offsets",
            "clocks can be set only in a time namespace of the container's own",
            "set namespaces.time to new, or leave this out",
        ));
    }
    let clocks = [
        ("monotonic", offsets.monotonic),
        ("boottime", offsets.boottime),
    ];
    let map = clocks
        .into_iter()
        .filter_map(|(clock, offset)| Some((clock, offset?)))
        .map(|(clock, offset)| Ok((clock.to_owned(), spec_offset(clock, offset)?)))
        .collect::<Result<HashMap<_, _>, _>>()?;
    Ok((!map.is_empty()).then_some(map))
}

fn spec_offset(clock: &str, offset: TimeOffset) -> Result<LinuxTimeOffset, ConfigError> {
    littlebox_plan::clocks::check_offset(offset.secs, offset.nanos)
        .map_err(|detail| error(format!("/time_offsets/{clock}"), detail))?;
    let mut spec = LinuxTimeOffset::default();
    spec.set_secs(Some(offset.secs));
    spec.set_nanosecs(Some(offset.nanos));
    Ok(spec)
}
