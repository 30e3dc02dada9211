//! `ns`: namespaces.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use littlebox_types::{NamespaceDiff, NamespaceInfo, NamespaceNode, NamespaceType};

use super::error::Failure;
use super::table::{Column, Table};
use super::{Context, output, sanitize};

// `lbctl ns`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct NsArgs {
    #[command(subcommand)]
    command: Option<NsCommand>,
    /// The same as ns inspect CONTAINER
    container: Option<String>,
}

#[derive(Debug, Subcommand)]
enum NsCommand {
    /// List the host's namespaces
    #[command(visible_alias = "ls")]
    List {
        /// Only this type: mnt, uts, ipc, net, pid, user, cgroup or time
        #[arg(short, long = "type", value_name = "TYPE")]
        kind: Option<NamespaceType>,
    },
    /// Show a container's namespaces beside the host's
    Inspect {
        /// Container
        container: String,
    },
    /// Show the host's namespaces as a tree
    Tree {
        /// Group by owner (the owning user namespace) or parent (pid and user)
        #[arg(long, value_name = "owner|parent")]
        by: Option<String>,
    },
    /// Compare the namespaces of two containers, or of one and the host
    Diff {
        /// Container, or host
        a: String,
        /// Container, or host
        b: String,
    },
}

/// Shows namespaces.
pub async fn ns(ctx: &Context, args: NsArgs) -> Result<i32, Failure> {
    let command = match (args.command, args.container) {
        (Some(command), _) => command,
        (None, Some(container)) => NsCommand::Inspect { container },
        (None, None) => NsCommand::List { kind: None },
    };
    match command {
        NsCommand::List { kind } => list(ctx, kind).await,
        NsCommand::Inspect { container } => inspect(ctx, &container).await,
        NsCommand::Tree { by } => tree(ctx, by.as_deref()).await,
        NsCommand::Diff { a, b } => diff(ctx, &a, &b).await,
    }
    .map(|()| 0)
}

const LIST: &[Column] = &[
    Column::number("NS"),
    Column::whole("TYPE"),
    Column::number("NPROCS"),
    Column::number("PID"),
    Column::number("UID"),
    Column::text("CONTAINERS"),
    Column::text("COMMAND"),
];

async fn list(ctx: &Context, kind: Option<NamespaceType>) -> Result<(), Failure> {
    let items = ctx.client.namespaces(kind).await?;
    if ctx.json {
        return output::json(&items);
    }
    let mut table = Table::new(LIST);
    for ns in items {
        table.row([
            ns.inode.to_string(),
            ns.kind,
            ns.processes.to_string(),
            ns.pid.to_string(),
            ns.uid.to_string(),
            ns.containers.join(","),
            ns.command,
        ]);
    }
    output::table(&table)
}

const INSPECT: &[Column] = &[
    Column::whole("TYPE"),
    Column::number("INODE"),
    Column::number("HOST-INODE"),
    Column::number("OWNER"),
    Column::text("SHARED-WITH"),
];

async fn inspect(ctx: &Context, container: &str) -> Result<(), Failure> {
    let answer = ctx.client.container_namespaces(container).await?;
    if ctx.json {
        return output::json(&answer);
    }
    let mut table = Table::new(INSPECT);
    for ns in answer.namespaces {
        let host = ns.is_host.then(|| "host".to_owned());
        let shared: Vec<String> = host.into_iter().chain(ns.shared_with).collect();
        table.row([
            ns.kind,
            ns.inode.to_string(),
            ns.host_inode.to_string(),
            ns.owner_user_inode
                .map(|n| n.to_string())
                .unwrap_or_default(),
            if shared.is_empty() {
                "-".to_owned()
            } else {
                shared.join(",")
            },
        ]);
    }
    output::table(&table)
}

async fn tree(ctx: &Context, by: Option<&str>) -> Result<(), Failure> {
    let nodes = ctx.client.namespace_tree(by).await?;
    if ctx.json {
        return output::json(&nodes);
    }
    let mut text = String::new();
    for node in &nodes {
        let _ = writeln!(text, "{}", describe(&node.info));
        branches(&mut text, &node.children, "");
    }
    output::print(&text)
}

/// Draws children below their parent.
fn branches(out: &mut String, children: &[NamespaceNode], indent: &str) {
    for (i, child) in children.iter().enumerate() {
        let last = i + 1 == children.len();
        let (branch, below) = if last {
            ("└─", "  ")
        } else {
            ("├─", "│ ")
        };
        let _ = writeln!(out, "{indent}{branch}{}", describe(&child.info));
        branches(out, &child.children, &format!("{indent}{below}"));
    }
}

fn describe(ns: &NamespaceInfo) -> String {
    let plural = if ns.processes == 1 { "" } else { "es" };
    let mut text = format!("{} {}  {} process{plural}", ns.kind, ns.inode, ns.processes);
    if ns.containers.is_empty() {
        let _ = write!(
            text,
            ", {} {}",
            ns.pid,
            super::table::shorten(&ns.command, 40)
        );
    } else {
        let _ = write!(text, "  [{}]", ns.containers.join(","));
    }
    sanitize::text(&text).into_owned()
}

async fn diff(ctx: &Context, a: &str, b: &str) -> Result<(), Failure> {
    let diff = ctx.client.namespace_diff(a, b).await?;
    if ctx.json {
        output::json(&diff)
    } else {
        output::print(&render_diff(&diff))
    }
}

fn render_diff(diff: &NamespaceDiff) -> String {
    let mut out = String::new();
    for ns in &diff.types {
        if ns.shared {
            let _ = writeln!(out, "{:<7} {} shared", ns.kind, ns.a_inode);
            continue;
        }
        let _ = writeln!(out, "{:<7} {} | {}", ns.kind, ns.a_inode, ns.b_inode);
        for (subject, difference) in &ns.differences {
            let _ = writeln!(out, "        {}:", sanitize::text(subject));
            sides(&mut out, &diff.a, &difference.a);
            sides(&mut out, &diff.b, &difference.b);
        }
    }
    out
}

/// One side's values, a line each.
fn sides(out: &mut String, who: &str, value: &serde_json::Value) {
    let shown = |v: &serde_json::Value| match v {
        serde_json::Value::String(s) => sanitize::text(s).into_owned(),
        other => sanitize::text(&other.to_string()).into_owned(),
    };
    let values = match value {
        serde_json::Value::Null => Vec::new(),
        serde_json::Value::Array(items) => items.iter().map(shown).collect(),
        other => vec![shown(other)],
    };
    for value in values {
        let _ = writeln!(out, "          {}: {value}", sanitize::text(who));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littlebox_types::{Difference, NamespaceTypeDiff};

    #[test]
    fn a_diff_shows_what_is_shared_and_what_differs() {
        let difference = Difference {
            a: "web".into(),
            b: serde_json::json!(["x\ny", 1]),
        };
        let kind = |kind: &str, shared, differences| NamespaceTypeDiff {
            kind: kind.into(),
            a_inode: 1,
            b_inode: 2,
            shared,
            differences,
        };
        let diff = NamespaceDiff {
            a: "one".into(),
            b: "host".into(),
            types: vec![
                kind("net", true, Default::default()),
                kind("uts", false, [("hostname".to_owned(), difference)].into()),
            ],
        };
        assert_eq!(
            render_diff(&diff),
            "net     1 shared\nuts     1 | 2\n        hostname:\n          one: web\n          \
             host: x\\ny\n          host: 1\n"
        );
    }

    #[test]
    fn a_tree_is_drawn_with_branches() {
        let node = |inode, children| NamespaceNode {
            info: NamespaceInfo {
                kind: "user".into(),
                inode,
                processes: 1,
                pid: 7,
                command: "sh".into(),
                uid: 0,
                owner_user_inode: None,
                parent_inode: None,
                containers: Vec::new(),
            },
            children,
        };
        let mut text = String::new();
        branches(
            &mut text,
            &[node(1, vec![node(2, vec![])]), node(3, vec![])],
            "",
        );
        assert_eq!(
            text,
            "├─user 1  1 process, 7 sh\n│ └─user 2  1 process, 7 sh\n└─user 3  1 process, 7 sh\n"
        );
    }
}
