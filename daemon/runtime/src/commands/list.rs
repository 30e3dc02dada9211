//! `list`.

use std::collections::BTreeMap;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use littlebox_plan::SPEC_VERSION;
use serde::Serialize;

use super::find;
use crate::cli::{List, ListFormat};
use crate::error::{Error, Result};
use crate::output;
use crate::store::{Entry, Record, Status, Store};

/// A container as runc's `list --format json` has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    oci_version: &'static str,
    id: &'a str,
    pid: u32,
    status: String,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

/// Lists the containers.
pub fn run(store: &Store, arguments: &List) -> Result<()> {
    let mut found = Vec::new();
    for id in store.ids()? {
        match find(store, id.as_str()) {
            Ok(entry) => found.push(entry),
            // Deleted a moment ago.
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if arguments.quiet {
        return found
            .iter()
            .try_for_each(|(entry, _)| output::line(entry.id().as_str()));
    }
    let rows = found
        .iter()
        .map(|(entry, record)| row(entry, record))
        .collect::<Result<Vec<Row<'_>>>>()?;
    match arguments.format {
        ListFormat::Json => {
            output::line(&serde_json::to_string(&rows).expect("strings and numbers are JSON"))
        }
        ListFormat::Table => table(&rows),
    }
}

fn row<'a>(entry: &'a Entry, record: &'a Record) -> Result<Row<'a>> {
    let status = entry.status(record)?;
    let pid = record.process.map_or(0, |process| process.pid);
    Ok(Row {
        oci_version: SPEC_VERSION,
        id: entry.id().as_str(),
        pid: if status == Status::Stopped { 0 } else { pid },
        status: status.to_string(),
        bundle: &record.bundle,
        rootfs: &record.rootfs,
        created: &record.created,
        annotations: &record.annotations,
        owner: owner(entry.path()),
    })
}

/// Who created it: the owner of its directory.
fn owner(path: &Path) -> String {
    match std::fs::metadata(path).map(|meta| meta.st_uid()) {
        Ok(0) => "root".to_owned(),
        Ok(uid) => format!("#{uid}"),
        Err(_) => String::new(),
    }
}

fn table(rows: &[Row<'_>]) -> Result<()> {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let mut lines = vec![header];
    lines.extend(rows.iter().map(|row| {
        [
            row.id.to_owned(),
            row.pid.to_string(),
            row.status.clone(),
            row.bundle.display().to_string(),
            row.created.to_owned(),
            row.owner.clone(),
        ]
    }));
    let width = |i: usize| lines.iter().map(|line| line[i].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    lines.iter().try_for_each(|line| {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        output::line(cells.join("  ").trim_end())
    })
}
