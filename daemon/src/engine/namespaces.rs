//! The namespaces of containers and of the host, read from the kernel for each request.

use littlebox_protocol::{Call, NamespaceRef, NamespaceRelation, Reply};
use littlebox_types::{ContainerNamespaces, ContainerState, NamespaceDiff, NamespaceInfo};

use super::{Engine, EngineError, Handle};
use crate::namespaces::{self, Scan, Side};
use crate::procfs;

/// What is refused while a container does not run.
const WISH: &str = "its namespaces";

impl Engine {
    /// Every namespace of the host in which a process lives, with the containers in it.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceInfo>, EngineError> {
        let scan = self.read_kernel("read the host's namespaces", Scan::take);
        let mut scan = scan.await?;
        let commands = self.command_lines(None, scan.described());
        scan.set_commands(commands.await);
        let relations = self.relations(scan.refs()).await;
        Ok(scan.list(&self.running(), &relations))
    }

    /// The namespaces of a container that runs, beside the host's and those of other containers.
    ///
    /// # Errors
    /// No such container; [`EngineError::NotRunning`].
    pub async fn namespaces_of(&self, reference: &str) -> Result<ContainerNamespaces, EngineError> {
        let handle = self.find(reference)?;
        let pid = pid_of(&handle)?;
        let own = self
            .read_kernel("read the container's namespaces", move || {
                namespaces::of_process(pid)
            })
            .await?;
        let relations = self.relations(namespaces::refs_of(pid, &own)).await;
        let mut others = self.running();
        others.retain(|(_, other)| *other != pid);
        let namespaces = self
            .read_kernel("read other containers' namespaces", move || {
                namespaces::of_container(&own, &relations, &others)
            })
            .await?;
        Ok(ContainerNamespaces {
            container_id: handle.id.to_string(),
            pid,
            namespaces,
        })
    }

    /// Compares two sides, each a container that runs or `host`.
    ///
    /// # Errors
    /// No such container; [`EngineError::NotRunning`].
    pub async fn compare_namespaces(&self, a: &str, b: &str) -> Result<NamespaceDiff, EngineError> {
        let (left, right) = (self.side(a).await?, self.side(b).await?);
        let types = self
            .read_kernel("compare namespaces", move || {
                namespaces::diff(&left, &right)
            })
            .await?;
        Ok(NamespaceDiff {
            a: a.to_owned(),
            b: b.to_owned(),
            types,
        })
    }

    /// Owners, parents and ids of namespaces; none where the zygote cannot be asked.
    async fn relations(&self, refs: Vec<NamespaceRef>) -> Vec<NamespaceRelation> {
        let relations = self.supervisor.namespace_relations(refs).await;
        relations.unwrap_or_else(|error| {
            tracing::warn!(%error, "the owners of namespaces could not be asked for");
            Vec::new()
        })
    }

    /// Name and PID of every container that runs.
    fn running(&self) -> Vec<(String, u32)> {
        let records = self.all().into_iter().map(|handle| handle.record());
        records
            .filter_map(|record| Some((record.name.to_string(), record.process?.pid)))
            .collect()
    }

    async fn side(&self, reference: &str) -> Result<Side, EngineError> {
        if reference == "host" {
            let uname = rustix::system::uname();
            return Ok(Side {
                pid: std::process::id(),
                hostname: Some(uname.nodename().to_string_lossy().into_owned()),
                domainname: Some(uname.domainname().to_string_lossy().into_owned()),
            });
        }
        let handle = self.find(reference)?;
        let pid = pid_of(&handle)?;
        let (hostname, domainname) = match handle.running_helper(WISH)?.call(Call::Hostname).await?
        {
            (
                Reply::Hostname {
                    hostname,
                    domainname,
                },
                _,
            ) => (Some(hostname), Some(domainname)),
            _ => (None, None),
        };
        Ok(Side {
            pid,
            hostname,
            domainname,
        })
    }
}

/// The PID 1 of a container that runs, checked against PID reuse.
fn pid_of(handle: &Handle) -> Result<u32, EngineError> {
    let record = handle.record();
    let ended = |state| EngineError::NotRunning {
        name: record.name.to_string(),
        state,
        wish: WISH,
    };
    let process = record.process.as_ref().ok_or_else(|| ended(record.state))?;
    if procfs::start_time(process.pid).ok() != Some(process.start_time) {
        return Err(ended(ContainerState::Exited));
    }
    Ok(process.pid)
}
