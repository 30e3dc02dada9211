//! The labels by which tests provoke failures and turn defences off. A daemon without test faults
//! takes them for labels like others.

use std::collections::BTreeMap;

use littlebox_protocol::{Defence, Injection, LayerIdmap, Step};

/// The label with which tests provoke a failure.
const INJECT_LABEL: &str = "littlebox.test/inject";
/// The label with which tests turn one defence off.
const WEAKEN_LABEL: &str = "littlebox.test/weaken";
/// The label with which tests take a way that this kernel does not need.
const ROOTFS_LABEL: &str = "littlebox.test/rootfs";

/// The failure that is asked for.
pub(super) fn inject(labels: &BTreeMap<String, String>) -> Option<Injection> {
    labels.get(INJECT_LABEL).and_then(|text| injection(text))
}

/// The defence that is to be turned off.
pub(super) fn weaken(labels: &BTreeMap<String, String>) -> Option<Defence> {
    let text = labels.get(WEAKEN_LABEL)?;
    Defence::ALL.into_iter().find(|d| d.name() == text)
}

/// How the root is to be idmapped.
pub(super) fn layer_idmap(labels: &BTreeMap<String, String>) -> LayerIdmap {
    match labels.get(ROOTFS_LABEL).map(String::as_str) {
        Some("attached") => LayerIdmap::Attached,
        Some("refused") => LayerIdmap::Refused,
        _ => LayerIdmap::Auto,
    }
}

/// `STEP:ERRNO`, e.g. `pivot_root:5`; anything else is a label like others.
fn injection(text: &str) -> Option<Injection> {
    let (step, errno) = text.split_once(':')?;
    let step = Step::ALL.into_iter().find(|s| s.name() == step)?;
    let errno = errno.parse().ok().filter(|n| (0..=4095).contains(n))?;
    Some(Injection { step, errno })
}
