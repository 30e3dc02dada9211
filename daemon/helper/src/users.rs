//! The container's own user database: `/etc/passwd` and `/etc/group`, never trusted.
//!
//! Read by the process that becomes the program, when its root is already the container's. The
//! files are the image's: they are opened without magic links and without blocking, must be
//! regular, and are bounded (CVE-2024-9676, CVE-2026-47262). Ids are parsed into 32 bits with
//! checks (CVE-2024-40635).

use std::fs::File;
use std::io::Read;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use crate::fault::{Fault, OrFault};
use crate::protocol::{Defence, UserPlan, UserRef};

/// The largest database that is read.
const FILE_LIMIT: u64 = 1024 * 1024;

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

/// Looks a user up. Files that are missing are empty: enough for numeric ids. What is not needed
/// is not read.
///
/// As with Docker, `/etc/group` gives supplementary groups only where the primary group was not
/// named: whoever names a group wants exactly that.
pub fn look_up(plan: &UserPlan, needs_home: bool) -> Result<Identity, Fault> {
    let mut databases = Databases::default();
    let user = match &plan.user {
        UserRef::Id(uid) if plan.group.is_some() && !needs_home => User::numeric(*uid),
        UserRef::Id(uid) => databases
            .by_id(*uid)?
            .unwrap_or_else(|| User::numeric(*uid)),
        UserRef::Name(name) => databases.by_name(name)?,
    };
    let (gid, mut groups) = match &plan.group {
        Some(group) => (databases.group(group)?, Vec::new()),
        None => (user.gid, databases.groups_of(user.name.as_deref())?),
    };
    for group in &plan.additional_groups {
        groups.push(databases.group(group)?);
    }
    groups.sort_unstable();
    groups.dedup();
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

/// The two files, read when first needed.
#[derive(Debug, Default)]
struct Databases {
    passwd: Option<String>,
    group: Option<String>,
}

impl Databases {
    fn passwd(&mut self) -> Result<&str, Fault> {
        keep(&mut self.passwd, "/etc/passwd")
    }

    fn groups(&mut self) -> Result<&str, Fault> {
        keep(&mut self.group, "/etc/group")
    }

    fn by_id(&mut self, uid: u32) -> Result<Option<User>, Fault> {
        Ok(self
            .passwd()?
            .lines()
            .filter_map(User::parse)
            .find(|user| user.uid == uid))
    }

    fn by_name(&mut self, name: &str) -> Result<User, Fault> {
        let has_name = |user: &User| user.name.as_deref() == Some(name);
        if let Some(user) = self
            .passwd()?
            .lines()
            .filter_map(User::parse)
            .find(has_name)
        {
            return Ok(user);
        }
        let uid = numeric(name, "user", "/etc/passwd")?;
        Ok(self.by_id(uid)?.unwrap_or_else(|| User::numeric(uid)))
    }

    fn group(&mut self, group: &UserRef) -> Result<u32, Fault> {
        let name = match group {
            UserRef::Id(gid) => return Ok(*gid),
            UserRef::Name(name) => name,
        };
        let has_name = |group: &Group<'_>| group.name == name;
        match self
            .groups()?
            .lines()
            .filter_map(Group::parse)
            .find(has_name)
        {
            Some(group) => Ok(group.gid),
            None => numeric(name, "group", "/etc/group"),
        }
    }

    fn groups_of(&mut self, name: Option<&str>) -> Result<Vec<u32>, Fault> {
        let Some(name) = name else {
            return Ok(Vec::new());
        };
        let is_member = |group: &Group<'_>| group.members.split(',').any(|member| member == name);
        let groups = self
            .groups()?
            .lines()
            .filter_map(Group::parse)
            .filter(is_member);
        Ok(groups.map(|group| group.gid).collect())
    }
}

/// A name that the database does not have may still be a number.
fn numeric(name: &str, what: &str, file: &str) -> Result<u32, Fault> {
    name.parse().map_err(|_| {
        let detail = format!("there is no {what} {name:?} in the container's {file}");
        Fault::refused(detail).at(file)
    })
}

fn keep<'s>(slot: &'s mut Option<String>, path: &str) -> Result<&'s str, Fault> {
    match slot {
        Some(text) => Ok(text),
        None => Ok(slot.insert(read(path)?)),
    }
}

fn read(path: &str) -> Result<String, Fault> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut resolve = ResolveFlags::empty();
    if Defence::InRoot.stands() {
        resolve = ResolveFlags::NO_MAGICLINKS;
    }
    let file = match openat2(CWD, path, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(Fault::of("openat2", errno).at(path)),
    };
    if FileType::from_raw_mode(fstat(&file).fault_at("fstat", path)?.st_mode)
        != FileType::RegularFile
    {
        return Err(Fault::refused("the user database is not a regular file").at(path));
    }
    let mut bytes = Vec::new();
    // One byte more tells that it is too large; the size that stat(2) gives is the image's claim.
    File::from(file)
        .take(FILE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .fault_at("read", path)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(Fault::refused("the user database is larger than 1 MiB").at(path));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases() -> Databases {
        Databases {
            passwd: Some(
                "root:x:0:0:root:/root:/bin/sh\nbad line\nanna:x:1000:100::/home/anna:/bin/sh\n\
                 wrap:x:4294967296:0::/:\n"
                    .to_owned(),
            ),
            group: Some("root:x:0:\nusers:x:100:\nwheel:x:10:root,anna\n:x:7:anna\n".to_owned()),
        }
    }

    #[test]
    fn a_name_gives_ids_and_memberships() {
        let mut databases = databases();
        let anna = databases.by_name("anna").expect("anna exists");
        assert_eq!((anna.uid, anna.gid), (1000, 100));
        assert_eq!(anna.home.as_deref(), Some("/home/anna"));
        assert_eq!(databases.groups_of(Some("anna")).expect("readable"), [10]);
    }

    #[test]
    fn a_number_needs_no_entry() {
        assert_eq!(
            databases().by_name("4711").expect("numeric"),
            User::numeric(4711)
        );
    }

    #[test]
    fn ids_that_do_not_fit_are_no_ids() {
        assert!(databases().by_name("4294967296").is_err());
        assert!(databases().by_name("-1").is_err());
        assert!(databases().by_name("wrap").is_err());
    }

    #[test]
    fn an_unknown_name_is_told_with_its_file() {
        let fault = databases().by_name("nobody-here").expect_err("unknown");
        assert_eq!(fault.path.as_deref(), Some("/etc/passwd"));
        assert!(
            databases()
                .group(&UserRef::Name("nope".to_owned()))
                .is_err()
        );
    }
}
