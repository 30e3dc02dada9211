//! Looking: inspect, list, plan.

use std::sync::Arc;

use littlebox_protocol::cgroup::Layout;
use littlebox_protocol::{LaunchPlan, Launched, NamespaceKind};
use littlebox_types::{
    Container, ContainerConfig, ContainerId, ContainerState, ContainerSummary, Failure, Page, Plan,
    PlanNamespace, PlanStep,
};

use crate::engine::host::looking;
use crate::engine::launch::{prepare, prepare_again};
use crate::engine::policies::relaxations;
use crate::engine::record::Record;
use crate::engine::{Engine, EngineError, Handle};
use crate::spec::{self, NamespaceOrigin, Prepared};

/// One condition of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// In this state.
    State(ContainerState),
    /// The name contains this.
    Name(String),
    /// The id begins so.
    Id(String),
    /// Has this label, with this value when one is given.
    Label(String, Option<String>),
}

/// Filters of different keys must all hold; of several states, names or ids one must. Labels must
/// all be there.
fn admitted(filters: &[Filter], record: &Record) -> bool {
    filters.iter().all(|filter| match filter {
        Filter::Label(..) => filter.matches(record),
        Filter::State(_) | Filter::Name(_) | Filter::Id(_) => filters
            .iter()
            .filter(|other| std::mem::discriminant(*other) == std::mem::discriminant(filter))
            .any(|other| other.matches(record)),
    })
}

impl Filter {
    fn matches(&self, record: &Record) -> bool {
        match self {
            Filter::State(state) => record.state == *state,
            Filter::Name(part) => record.name.as_str().contains(part),
            Filter::Id(part) => record.id.to_string().starts_with(part),
            Filter::Label(key, value) => record
                .labels
                .get(key)
                .is_some_and(|v| value.as_ref().is_none_or(|wanted| wanted == v)),
        }
    }
}

impl Engine {
    /// The config a container was created with.
    pub async fn config(&self, handle: &Handle) -> Result<Arc<ContainerConfig>, EngineError> {
        let kept = handle.live().config.clone();
        if let Some(config) = kept {
            return Ok(config);
        }
        let text = self
            .store
            .config(handle.id)
            .await?
            .ok_or_else(|| EngineError::ContainerNotFound(handle.id.to_string()))?;
        serde_json::from_str(&text).map(Arc::new).map_err(|e| {
            EngineError::Store(crate::store::StoreError::Sql(format!(
                "the config of container {} cannot be read: {e}",
                handle.id
            )))
        })
    }

    /// A container, whole.
    pub async fn inspect(&self, handle: &Arc<Handle>) -> Result<Container, EngineError> {
        let config = self.config(handle).await?;
        let (record, execs) = {
            let live = handle.live();
            (
                live.record.clone(),
                live.execs.iter().map(|e| e.id).collect(),
            )
        };
        let mut container = record.container((*config).clone(), execs);
        container.relaxations = relaxations::of(&config, &self.paths.socket);
        if !spec::is_from_spec(&config) || config.overlay {
            container.upper_dir = Some(self.paths.upper(handle.id).to_string_lossy().into_owned());
        }
        container.log_path = Some(self.paths.log(handle.id).to_string_lossy().into_owned());
        Ok(container)
    }

    /// Whether the container that has this host id was given the API's socket: a bind mount of exactly
    /// that, which is shown as a relaxation. A directory that holds it is not meant so.
    pub async fn has_socket(&self, uid: u32) -> bool {
        let owner = self.ids.owner(uid);
        let handle = owner.and_then(|id| self.find(&id.to_string()).ok());
        let Some(handle) = handle else { return false };
        let config = self.config(&handle).await;
        config.is_ok_and(|config| relaxations::has_socket(&config, &self.paths.socket))
    }

    /// One page of containers after `cursor`, oldest first, that the filters admit.
    pub fn list(
        &self,
        filters: &[Filter],
        cursor: Option<ContainerId>,
        limit: usize,
    ) -> Page<ContainerSummary> {
        let containers = self.containers();
        let range = match cursor {
            Some(id) => containers
                .by_id
                .range((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded)),
            None => containers.by_id.range(..),
        };
        let mut items = Vec::new();
        let mut next = None;
        for handle in range.map(|(_, handle)| handle) {
            let live = handle.live();
            if !admitted(filters, &live.record) {
                continue;
            }
            if items.len() == limit {
                next = items
                    .last()
                    .map(|last: &ContainerSummary| last.id.to_string());
                break;
            }
            items.push(live.record.summary());
        }
        Page { items, next }
    }

    /// What a create would do, step by step, without doing it.
    pub async fn dry_run(self: &Arc<Self>, config: ContainerConfig) -> Result<Plan, EngineError> {
        let config = self.resolve(config).await?;
        let id = ContainerId::generate();
        let range = spec::takes_range(&config)?.then(|| self.ids.example());
        let plan = self.look(looking::named(&config), move |engine| {
            let prepared = prepare(&config, &engine.context(&id, range))?;
            engine.unstarted_plan(id, &config, prepared)
        });
        Ok(explained(&plan.await?, None, None))
    }

    /// How a container is, or was, built.
    pub async fn plan(self: &Arc<Self>, handle: &Handle) -> Result<Plan, EngineError> {
        let config = self.config(handle).await?;
        let (id, range) = (handle.id, handle.record().id_range);
        let plan = self.look(looking::named(&config), move |engine| {
            let prepared = prepare_again(&config, &engine.context(&id, range))?;
            engine.unstarted_plan(id, &config, prepared)
        });
        let plan = plan.await?;
        // Nobody waits for the commit of a start's timings: what was queued must be in before it is read.
        self.store.commit(Vec::new(), false).await?;
        let launched = self.store.launched(handle.id).await?;
        let launched: Option<Launched> = launched.and_then(|t| serde_json::from_str(&t).ok());
        let failure = handle.record().failure;
        Ok(explained(&plan, launched.as_ref(), failure))
    }

    /// The plan with joined namespaces numbered but not opened.
    fn unstarted_plan(
        &self,
        id: ContainerId,
        config: &ContainerConfig,
        prepared: Prepared,
    ) -> Result<LaunchPlan, EngineError> {
        let joins = prepared
            .namespaces
            .iter()
            .filter(|(_, s)| !matches!(s, NamespaceOrigin::New | NamespaceOrigin::Host))
            .enumerate()
            .map(|(index, (kind, _))| (*kind, index))
            .collect::<std::collections::BTreeMap<NamespaceKind, usize>>();
        self.launch_plan(id, config, prepared, joins, None)
    }
}

/// The steps in words, with what was measured where it is known.
fn explained(plan: &LaunchPlan, launched: Option<&Launched>, failure: Option<Failure>) -> Plan {
    let steps = littlebox_plan::explain::explain(plan, Layout::detect())
        .into_iter()
        .map(|step| {
            let timings = launched
                .iter()
                .flat_map(|l| &l.timings)
                .filter(|t| t.step == step.step);
            let start_ns = timings.clone().map(|t| t.start_ns).min();
            let name = step.step.name();
            PlanStep {
                step: name.to_owned(),
                what: step.what,
                commands: step.commands,
                start_ns,
                duration_ns: start_ns.map(|_| timings.map(|t| t.duration_ns).sum()),
                failure: failure.clone().filter(|f| f.step == name),
            }
        })
        .collect();
    let namespaces = launched
        .iter()
        .flat_map(|l| &l.namespaces)
        .map(|n| PlanNamespace {
            kind: n.kind.name().to_owned(),
            host: n.host,
            container: n.container,
        })
        .collect();
    let total_ns =
        launched.and_then(|l| l.timings.iter().map(|t| t.start_ns + t.duration_ns).max());
    Plan {
        steps,
        namespaces,
        total_ns,
    }
}
