//! From the body of a request to the plan of a start: any JSON is refused by its pointer or becomes
//! a plan that explains itself.
#![no_main]

use std::sync::LazyLock;

use littlebox_types::{ContainerConfig, ContainerId};
use libfuzzer_sys::fuzz_target;
use littlebox_protocol::cgroup::Layout;
use littlebox_protocol::{LogPlan, NamespaceKind, RootfsSource};
use littlebox_plan::Envelope;
use littlebox_plan::seccomp::Compiler;
use littleboxd::idpool::IdRange;
use littleboxd::spec::{SpecContext, prepare};

fuzz_target!(|data: &[u8]| {
    let Ok(config) = serde_json::from_slice::<ContainerConfig>(data) else {
        return;
    };
    let id = ContainerId::generate();
    let range = Some(IdRange {
        first: 65_536,
        size: 65_536,
    });
    static SECCOMP: LazyLock<Compiler> = LazyLock::new(|| Compiler::new((6, 1)));
    let context = SpecContext {
        id: &id,
        range,
        seccomp: &SECCOMP,
    };
    let prepared = match prepare(&config, &context) {
        Ok(prepared) => prepared,
        Err(error) => {
            assert!(error.pointer.starts_with('/') || error.pointer.is_empty());
            return;
        }
    };
    let log = LogPlan {
        path: "/state/log".into(),
        max_size: None,
        max_files: 0,
    };
    let mut envelope = Envelope::new(
        id.to_string(),
        "/run/c".into(),
        RootfsSource::Bind {
            path: "/root".into(),
        },
        log,
    );
    envelope.joins = NamespaceKind::ALL.into_iter().zip(0..).collect();
    if let Ok(plan) = littlebox_plan::launch_plan(&prepared.spec, envelope) {
        assert!(!plan.process.args.is_empty());
        assert!(!littlebox_plan::explain::explain(&plan, Layout::detect()).is_empty());
    }
});
