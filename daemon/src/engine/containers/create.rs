//! Create, and create with start.

use std::sync::Arc;

use littlebox_types::{ContainerConfig, ContainerId, ContainerState, IdMap, IdMaps, Name};

use crate::engine::files::NoCopies;
use crate::engine::policies::restart::RestartState;
use crate::engine::record::{Record, maps_of};
use crate::engine::{Engine, EngineError, Handle};
use crate::faults;
use crate::idpool::{IdPool, IdRange};
use crate::lifecycle::Transition;
use crate::spec::{self, ConfigError, Prepared, RootSource};
use crate::store::Write;
use crate::time::now_ns;

/// How to create.
#[derive(Debug, Default)]
pub struct CreateOptions {
    /// Start it in the same call.
    pub start: bool,
    /// The client's key and the digest of its request.
    pub idempotency: Option<(String, String)>,
}

/// What a create made, or had made before.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub handle: Arc<Handle>,
    /// An earlier request with the same key made it.
    pub replayed: bool,
}

impl Engine {
    /// Makes a container, and starts it when asked to.
    ///
    /// With a start, the durable commit of the row and the building of the container go on at the
    /// same time; the answer waits for both. A helper whose row did not make it to the disk before
    /// a crash is found and ended at the next start of the daemon.
    pub async fn create(
        self: &Arc<Self>,
        config: ContainerConfig,
        options: CreateOptions,
    ) -> Result<Created, EngineError> {
        let engine = self.clone();
        let config = Arc::new(self.resolve(config).await?);
        self.detached(async move {
            let Some((key, digest)) = options.idempotency else {
                let handle = engine.create_new(config, options.start, Vec::new()).await?;
                return Ok(Created {
                    handle,
                    replayed: false,
                });
            };
            let _turn = engine.idempotency.turn(&key).await;
            engine
                .create_once(config, options.start, &key, digest)
                .await
        })
        .await
    }

    async fn create_once(
        self: &Arc<Self>,
        config: Arc<ContainerConfig>,
        start: bool,
        key: &str,
        digest: String,
    ) -> Result<Created, EngineError> {
        if let Some((request, subject)) = self.store.idempotent(key).await? {
            if request != digest {
                return Err(EngineError::IdempotencyConflict(format!(
                    "the idempotency key '{key}' was used for another request"
                )));
            }
            let handle = self.find(&subject).map_err(|_| {
                EngineError::IdempotencyConflict(format!(
                    "the container {subject} that was made with the idempotency key '{key}' \
                     has been removed"
                ))
            })?;
            return Ok(Created {
                handle,
                replayed: true,
            });
        }
        let remember = |id: ContainerId| Write::Idempotency {
            key: key.to_owned(),
            request: digest,
            subject: id.to_string(),
        };
        let id = ContainerId::generate();
        let handle = self
            .create_with_id(id, config, start, vec![remember(id)])
            .await?;
        Ok(Created {
            handle,
            replayed: false,
        })
    }

    async fn create_new(
        self: &Arc<Self>,
        config: Arc<ContainerConfig>,
        start: bool,
        extra: Vec<Write>,
    ) -> Result<Arc<Handle>, EngineError> {
        self.create_with_id(ContainerId::generate(), config, start, extra)
            .await
    }

    async fn create_with_id(
        self: &Arc<Self>,
        id: ContainerId,
        config: Arc<ContainerConfig>,
        start: bool,
        extra: Vec<Write>,
    ) -> Result<Arc<Handle>, EngineError> {
        let range = self.reserve_ids(id, &config).await?;
        let prepared = self.prepare(id, range.get(), config.clone()).await?;
        let record = new_record(id, &config, &prepared, range.get());
        let handle = Handle::new(record);
        let _turn = handle.operations.turn().await;
        let start = if start {
            Some(self.no_copies(&handle).await?)
        } else {
            None
        };
        self.insert(&handle)?;
        // From here on the record has it, and `forget` gives it back.
        range.keep();
        let result = self
            .record_and_start(&handle, &config, prepared, start, extra)
            .await;
        if let Err(error) = &result
            && !error.is_of_a_recorded_start()
        {
            self.discard(&handle).await;
        }
        result.map(|()| handle.clone())
    }

    /// The host ids of a container's own user namespace, until they are kept.
    async fn reserve_ids(
        &self,
        id: ContainerId,
        config: &ContainerConfig,
    ) -> Result<Reserved<'_>, EngineError> {
        if let Some(maps) = spec::given_id_maps(config) {
            let pointer = match (&config.bundle, &config.spec) {
                (Some(_), _) => |_: &str, _| "/bundle".to_owned(),
                (None, Some(_)) => |name: &str, i| format!("/spec/linux/{name}Mappings/{i}"),
                (None, None) => |name: &str, i| format!("/id_maps/{name}/{i}"),
            };
            self.check_maps(&maps, pointer)?;
        }
        let range = if spec::takes_range(config)? {
            Some(self.ids.allocate(id).await?)
        } else {
            None
        };
        Ok(Reserved {
            pool: &self.ids,
            id,
            range,
        })
    }

    /// Ids of the pool are given out by the pool alone.
    fn check_maps(
        &self,
        maps: &IdMaps,
        pointer: fn(&str, usize) -> String,
    ) -> Result<(), EngineError> {
        let pool = self.ids.config();
        for (name, map) in [("uid", &maps.uid), ("gid", &maps.gid)] {
            let taken = |line: &IdMap| pool.overlaps(line.host_id, line.size);
            // The whole range as it is gives nothing away that the host's namespace would not.
            let whole = |line: &IdMap| line.container_id == line.host_id;
            if let Some(i) = map.iter().position(|line| taken(line) && !whole(line)) {
                return Err(EngineError::Config(ConfigError {
                    pointer: pointer(name, i),
                    detail: format!(
                        "host ids from {} to {} belong to the pool of this daemon's containers",
                        pool.start,
                        pool.start + (pool.count - 1)
                    ),
                    hint: Some(
                        "leave out id_maps to get a range of the pool, or map to other ids".into(),
                    ),
                }));
            }
        }
        Ok(())
    }

    async fn record_and_start(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        config: &Arc<ContainerConfig>,
        prepared: Prepared,
        start: Option<NoCopies>,
        writes: Vec<Write>,
    ) -> Result<(), EngineError> {
        // Before the row: what cannot be made (no inodes left) leaves none that holds the name.
        self.make_directories(handle.id)?;
        faults::point("create.before");
        // The row keeps the config without what the record owns and may change.
        let config_json = serde_json::to_string(&**config).unwrap_or_default();
        let ((), queued) = self.change(handle, |live, recording| {
            recording.event("container.created", serde_json::json!({}));
            if start.is_some() {
                live.transition(Transition::Start)?;
                recording.event("container.starting", serde_json::json!({}));
            }
            recording.config = Some(config_json);
            recording.writes = writes;
            recording.durable = true;
            Ok::<_, EngineError>(())
        })?;
        let commit = async {
            let result = queued.committed().await;
            faults::point("create.after");
            result
        };
        let Some(no_copies) = start else {
            return Ok(commit.await?);
        };
        let launch = self.launch(handle, config, prepared, no_copies);
        let (commit, launch) = tokio::join!(commit, launch);
        if let Err(error) = commit {
            // The client will be told that nothing was made: then nothing may run.
            self.undo_launch(handle).await;
            return Err(error.into());
        }
        launch
    }

    /// Takes back a container that could not be recorded.
    async fn discard(self: &Arc<Self>, handle: &Arc<Handle>) {
        self.forget(handle);
        self.remove_files(handle.id).await;
    }
}

/// A range that is given back unless it is kept.
struct Reserved<'a> {
    pool: &'a IdPool,
    id: ContainerId,
    range: Option<IdRange>,
}

impl Reserved<'_> {
    fn get(&self) -> Option<IdRange> {
        self.range
    }

    fn keep(mut self) {
        self.range = None;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(range) = self.range {
            self.pool.release(self.id, range);
        }
    }
}

fn new_record(
    id: ContainerId,
    config: &ContainerConfig,
    prepared: &Prepared,
    range: Option<IdRange>,
) -> Record {
    Record {
        id,
        name: config.name.clone().unwrap_or_else(|| made_up_name(id)),
        state: ContainerState::Created,
        generation: 1,
        rootfs: shown_root(&prepared.root),
        command: shown_command(prepared),
        labels: config.labels.clone(),
        created_at: now_ns(),
        started_at: None,
        finished_at: None,
        exit: None,
        failure: None,
        failure_code: None,
        warnings: Vec::new(),
        cgroups: std::collections::BTreeMap::new(),
        oom_kills: 0,
        process: None,
        helper: None,
        auto_remove: config.auto_remove,
        attach: config.attach,
        terminal: prepared.terminal_size.is_some(),
        stdin: config.stdin,
        stop_signal: prepared.stop_signal.number(),
        stop_timeout_s: u32::try_from(prepared.stop_timeout.as_secs()).unwrap_or(u32::MAX),
        restart: RestartState {
            policy: config.restart.unwrap_or_default(),
            ..RestartState::default()
        },
        id_range: range,
        id_maps: range.map(maps_of).or_else(|| spec::given_id_maps(config)),
        idmaps: Vec::new(),
        device_filter: None,
        limits_back: None,
        helper_condition: None,
    }
}

fn shown_root(root: &RootSource) -> String {
    match root {
        RootSource::Host => "host".to_owned(),
        RootSource::Dir(path) => format!("dir:{}", path.display()),
        RootSource::Bind(path) => format!("bind:{}", path.display()),
    }
}

fn shown_command(prepared: &Prepared) -> Vec<String> {
    let process = prepared.spec.process().as_ref();
    process.and_then(|p| p.args().clone()).unwrap_or_default()
}

const ADJECTIVES: [&str; 32] = [
    "able", "bold", "brave", "brisk", "calm", "clear", "eager", "fair", "fleet", "fond", "free",
    "glad", "grand", "keen", "kind", "light", "lively", "lucky", "merry", "neat", "noble", "plain",
    "prime", "proud", "quick", "quiet", "ready", "sharp", "spry", "swift", "warm", "wise",
];
const NOUNS: [&str; 32] = [
    "ash", "badger", "beech", "birch", "brook", "cedar", "crane", "crow", "elm", "falcon", "fern",
    "finch", "fox", "hare", "hawk", "heron", "lark", "lynx", "maple", "marten", "oak", "otter",
    "owl", "pine", "raven", "robin", "seal", "stoat", "swan", "trout", "willow", "wren",
];

/// A name from the id's random tail: adjective, noun and four hex digits, unique enough that a
/// clash (which would be a 409) is not met in practice.
fn made_up_name(id: ContainerId) -> Name {
    let [.., a, b, c, d] = *id.0.as_bytes();
    let adjective = ADJECTIVES[usize::from(a) % ADJECTIVES.len()];
    let noun = NOUNS[usize::from(b) % NOUNS.len()];
    let tail = &id.0.as_simple().to_string()[20..28];
    let name = format!("{adjective}-{noun}-{tail}{:02x}{:02x}", c, d);
    #[expect(
        clippy::unwrap_used,
        reason = "words and hex digits are inside the grammar"
    )]
    name.parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_do_not_clash() {
        let names: std::collections::HashSet<_> = (0..10_000)
            .map(|_| made_up_name(ContainerId::generate()))
            .collect();
        assert_eq!(names.len(), 10_000);
    }
}
