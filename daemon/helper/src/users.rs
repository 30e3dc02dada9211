//! The container's own user database: `/etc/passwd` and `/etc/group`, never trusted.
//!
//! Read by the process that becomes the program, when its root is already the container's. The
//! files are the image's: they are opened without magic links and without blocking, must be
//! regular, and are bounded (CVE-2024-9676, CVE-2026-47262). Ids are parsed into 32 bits with
//! checks (CVE-2024-40635).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use crate::build::Warnings;
use crate::defence::stands;
use crate::fault::{Fault, OrFault};
use littlebox_protocol::{Defence, UserPlan, UserRef};

/// As much of a database is read. Lines are looked at one by one, so this costs time and no memory.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;
/// A longer line is no entry.
const LINE_LIMIT: u64 = 64 * 1024;

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The home directory in passwd; asked for only where the environment has no HOME.
    pub home: Option<String>,
}

/// Looks a user up. Files that are missing are empty: enough for numeric ids, which need no database
/// that can be read either. What is not needed is not read.
///
/// As with Docker, `/etc/group` gives supplementary groups only where the primary group was not
/// named: whoever names a group wants exactly that.
pub fn look_up(
    plan: &UserPlan,
    needs_home: bool,
    warnings: &mut Warnings,
) -> Result<Identity, Fault> {
    let databases = Databases::default();
    let is_number = matches!(plan.user, UserRef::Id(_));
    let user = match &plan.user {
        UserRef::Id(uid) if plan.group.is_some() && !needs_home => User::numeric(*uid),
        UserRef::Id(uid) => unless_unreadable(databases.by_id(*uid), is_number, warnings)?
            .unwrap_or_else(|| User::numeric(*uid)),
        UserRef::Name(name) => databases.by_name(name)?,
    };
    let (gid, mut groups) = match &plan.group {
        Some(group) => (databases.group(group)?, Vec::new()),
        None => {
            let groups = databases.groups_of(user.name.as_deref());
            (user.gid, unless_unreadable(groups, is_number, warnings)?)
        }
    };
    for group in &plan.additional_groups {
        groups.push(databases.group(group)?);
    }
    if user.uid == u32::MAX || gid == u32::MAX || groups.contains(&u32::MAX) {
        // (uid_t)-1 means "no change" to the system calls that follow.
        return Err(Fault::refused("4294967295 is not a usable id"));
    }
    Ok(Identity {
        uid: user.uid,
        gid,
        groups,
        home: user.home,
    })
}

/// A database that cannot be read says nothing of a numeric user, with a warning.
fn unless_unreadable<T: Default>(
    found: Result<T, Fault>,
    is_number: bool,
    warnings: &mut Warnings,
) -> Result<T, Fault> {
    match found {
        Err(fault) if is_number => {
            let file = fault.path.as_deref().unwrap_or("the user database");
            let why = fault.detail.as_deref().unwrap_or("it cannot be read");
            warnings.push(format!("{file} is not used: {why}"));
            Ok(T::default())
        }
        found => found,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    name: Option<String>,
    uid: u32,
    gid: u32,
    home: Option<String>,
}

impl User {
    fn numeric(uid: u32) -> User {
        User {
            name: None,
            uid,
            gid: 0,
            home: None,
        }
    }

    /// `name:password:uid:gid:comment:home:shell`; `None` for a line that is not like that.
    fn parse(line: &str) -> Option<User> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields
            .nth(1)
            .filter(|home| home.starts_with('/'))
            .map(str::to_owned);
        Some(User {
            name: Some(name.to_owned()),
            uid,
            gid,
            home,
        })
    }
}

#[derive(Debug)]
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Group<'_> {
    /// `name:password:gid:member,member`.
    fn parse(line: &str) -> Option<Group<'_>> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or(""),
        })
    }
}

/// Where the two files are.
#[derive(Debug)]
struct Databases {
    passwd: PathBuf,
    group: PathBuf,
}

impl Default for Databases {
    fn default() -> Self {
        Self {
            passwd: PathBuf::from("/etc/passwd"),
            group: PathBuf::from("/etc/group"),
        }
    }
}

impl Databases {
    fn by_id(&self, uid: u32) -> Result<Option<User>, Fault> {
        first(&self.passwd, |line| {
            User::parse(line).filter(|user| user.uid == uid)
        })
    }

    fn by_name(&self, name: &str) -> Result<User, Fault> {
        let named = first(&self.passwd, |line| {
            User::parse(line).filter(|user| user.name.as_deref() == Some(name))
        })?;
        if let Some(user) = named {
            return Ok(user);
        }
        let uid = numeric(name, "user", "/etc/passwd")?;
        Ok(self.by_id(uid)?.unwrap_or_else(|| User::numeric(uid)))
    }

    fn group(&self, group: &UserRef) -> Result<u32, Fault> {
        let name = match group {
            UserRef::Id(gid) => return Ok(*gid),
            UserRef::Name(name) => name,
        };
        let gid = first(&self.group, |line| {
            let group = Group::parse(line).filter(|group| group.name == name)?;
            Some(group.gid)
        })?;
        gid.map_or_else(|| numeric(name, "group", "/etc/group"), Ok)
    }

    fn groups_of(&self, name: Option<&str>) -> Result<Vec<u32>, Fault> {
        let mut gids = Vec::new();
        let Some(name) = name else {
            return Ok(gids);
        };
        first(&self.group, |line| {
            let group = Group::parse(line)?;
            if gids.len() < GROUPS_LIMIT && group.members.split(',').any(|member| member == name) {
                gids.push(group.gid);
            }
            None::<()>
        })?;
        Ok(gids)
    }
}

/// More groups setgroups(2) does not take (`NGROUPS_MAX`).
const GROUPS_LIMIT: usize = 65_536;

/// A name that the database does not have may still be a number.
fn numeric(name: &str, what: &str, file: &str) -> Result<u32, Fault> {
    name.parse().map_err(|_| {
        let detail = format!("there is no {what} {name:?} in the container's {file}");
        Fault::refused(detail).at(file)
    })
}

/// The first line of a database that means something.
fn first<T>(path: &Path, mut pick: impl FnMut(&str) -> Option<T>) -> Result<Option<T>, Fault> {
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    // The size that stat(2) gives is the image's claim.
    let mut reader = BufReader::new(file.take(FILE_LIMIT));
    let mut line = Vec::new();
    let mut is_start = true;
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_LIMIT).read_until(b'\n', &mut line);
        if read.fault_at("read", path.display())? == 0 {
            break;
        }
        let is_end = line.ends_with(b"\n") || (line.len() as u64) < LINE_LIMIT;
        if is_start && is_end {
            let text = String::from_utf8_lossy(&line);
            if let Some(found) = pick(text.trim_end_matches(['\n', '\r'])) {
                return Ok(Some(found));
            }
        }
        is_start = is_end;
    }
    if reader.get_ref().limit() == 0 {
        return Err(Fault::refused("the user database is larger than 16 MiB").at(path.display()));
    }
    Ok(None)
}

/// `None`: there is none.
fn open(path: &Path) -> Result<Option<File>, Fault> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut resolve = ResolveFlags::empty();
    if stands(Defence::InRoot) {
        resolve = ResolveFlags::NO_MAGICLINKS;
    }
    let file = match openat2(CWD, path, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(Fault::of("openat2", errno).at(path.display())),
    };
    let mode = fstat(&file).fault_at("fstat", path.display())?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return Err(Fault::refused("the user database is not a regular file").at(path.display()));
    }
    Ok(Some(File::from(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbad line\n\
                          anna:x:1000:100::/home/anna:/bin/sh\nwrap:x:4294967296:0::/:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:root,anna\n:x:7:anna\n";

    /// Databases of these texts, and the directory that keeps them.
    fn made(passwd: &str, group: &str) -> (tempfile::TempDir, Databases) {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("writable");
            path
        };
        let databases = Databases {
            passwd: put("passwd", passwd),
            group: put("group", group),
        };
        (dir, databases)
    }

    #[test]
    fn an_entry_behind_a_million_others_and_an_endless_line_is_found() {
        let others: String = (0..60_000).map(|n| format!("u{n}:x:5:5::/:\n")).collect();
        let endless = "e".repeat(300_000);
        let text = format!("{others}{endless}:x:7:7::/:\n{PASSWD}");
        assert!(text.len() > 1024 * 1024);
        let (_dir, databases) = made(&text, GROUP);
        assert_eq!(databases.by_name("anna").expect("anna exists").uid, 1000);
        assert_eq!(databases.by_id(7).expect("readable"), None);
    }

    #[test]
    fn a_database_without_end_stops_names_and_not_numbers() {
        let (_dir, databases) = made("", "");
        let file = std::fs::File::create(&databases.passwd).expect("writable");
        file.set_len(1 << 30).expect("sparse");
        assert!(databases.by_name("anna").is_err());
        let mut warnings = Warnings::new();
        let found = unless_unreadable(databases.by_id(7), true, &mut warnings);
        assert_eq!(found.expect("tolerated"), None);
        assert!(warnings[0].contains("larger than 16 MiB"), "{warnings:?}");
    }

    #[test]
    fn a_name_gives_ids_and_memberships() {
        let (_dir, databases) = made(PASSWD, GROUP);
        let anna = databases.by_name("anna").expect("anna exists");
        assert_eq!((anna.uid, anna.gid), (1000, 100));
        assert_eq!(anna.home.as_deref(), Some("/home/anna"));
        assert_eq!(databases.groups_of(Some("anna")).expect("readable"), [10]);
    }

    #[test]
    fn a_number_needs_no_entry() {
        let (_dir, databases) = made(PASSWD, GROUP);
        assert_eq!(
            databases.by_name("4711").expect("numeric"),
            User::numeric(4711)
        );
    }

    #[test]
    fn ids_that_do_not_fit_are_no_ids() {
        let (_dir, databases) = made(PASSWD, GROUP);
        assert!(databases.by_name("4294967296").is_err());
        assert!(databases.by_name("-1").is_err());
        assert!(databases.by_name("wrap").is_err());
    }

    #[test]
    fn an_unknown_name_is_told_with_its_file() {
        let (_dir, databases) = made(PASSWD, GROUP);
        let fault = databases.by_name("nobody-here").expect_err("unknown");
        assert_eq!(fault.path.as_deref(), Some("/etc/passwd"));
        assert!(databases.group(&UserRef::Name("nope".to_owned())).is_err());
    }
}
