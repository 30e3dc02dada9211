//! `-v`, `--mount` and `--tmpfs`.

use std::path::Path;

use littlebox_types::{MountConfig, MountKind};

use super::parse;

fn new(kind: MountKind, source: Option<String>, destination: &str) -> MountConfig {
    MountConfig {
        kind,
        source,
        destination: destination.to_owned(),
        read_only: false,
        recursive: None,
        propagation: None,
        create: false,
        idmap: None,
        size: None,
        mode: None,
        options: Vec::new(),
    }
}

/// The daemon wants absolute paths; a relative one is meant from here.
fn absolute(path: &str) -> Result<String, String> {
    std::path::absolute(Path::new(path))
        .map_err(|e| format!("'{path}': {e}"))?
        .into_os_string()
        .into_string()
        .map_err(|_| format!("'{path}' lies in a directory whose name is not UTF-8"))
}

/// Takes an option that every mount knows; `false` when it is none.
fn common_option(mount: &mut MountConfig, option: &str) -> bool {
    match option {
        "ro" | "readonly" => mount.read_only = true,
        "rw" => mount.read_only = false,
        "nosuid" | "nodev" | "noexec" | "noatime" | "nosymfollow" => {
            mount.options.push(option.to_owned());
        }
        _ => return false,
    }
    true
}

/// `SRC:DST[:OPTION,...]`. Options: `ro rw create bind rbind idmap noidmap` and the propagations.
pub fn volume(text: &str) -> Result<MountConfig, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(source), Some(destination)) = (parts.next(), parts.next()) else {
        return Err("use SOURCE:DESTINATION[:OPTIONS]".to_owned());
    };
    if source.is_empty() || destination.is_empty() {
        return Err("neither SOURCE nor DESTINATION may be empty".to_owned());
    }
    if !source.contains('/') && source != "." && source != ".." {
        return Err(format!(
            "named volumes are not supported yet; for the directory '{source}' write ./{source}"
        ));
    }
    let mut mount = new(MountKind::Bind, Some(absolute(source)?), destination);
    for option in parts
        .next()
        .into_iter()
        .flat_map(|o| o.split(','))
        .filter(|o| !o.is_empty())
    {
        match option {
            "create" => mount.create = true,
            "idmap" => mount.idmap = Some(true),
            "noidmap" => mount.idmap = Some(false),
            "bind" | "norecursive" => mount.recursive = Some(false),
            "rbind" => mount.recursive = Some(true),
            option if common_option(&mut mount, option) => {}
            option => {
                let unknown = |_| format!("unknown volume option '{option}'");
                mount.propagation = Some(option.parse().map_err(unknown)?);
            }
        }
    }
    Ok(mount)
}

/// `DST[:OPTION,...]`. Options: `size=64m mode=1777 ro noexec ...`.
pub fn tmpfs(text: &str) -> Result<MountConfig, String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = new(MountKind::Tmpfs, None, destination);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => mount.size = Some(parse::size(size)?),
            Some(("mode", mode)) => mount.mode = Some(mode.parse()?),
            None if common_option(&mut mount, option) => {}
            _ => return Err(format!("unknown tmpfs option '{option}'")),
        }
    }
    Ok(mount)
}

/// `type=bind,source=S,target=T,...` or `type=tmpfs,target=T,...`, as CSV.
pub fn mount(text: &str) -> Result<MountConfig, String> {
    let mut kind = None;
    let mut source = None;
    let mut target = None;
    let mut rest = Vec::new();
    let fields = parse::csv(text)?;
    for part in fields.iter().map(String::as_str).filter(|p| !p.is_empty()) {
        match part.split_once('=') {
            Some(("type", "bind")) => kind = Some(MountKind::Bind),
            Some(("type", "tmpfs")) => kind = Some(MountKind::Tmpfs),
            Some(("type", other)) => {
                return Err(format!("unknown mount type '{other}'; use bind or tmpfs"));
            }
            Some(("source" | "src", path)) => source = Some(path),
            Some(("target" | "destination" | "dst", path)) => target = Some(path),
            _ => rest.push(part),
        }
    }
    let kind = kind.ok_or("type=bind or type=tmpfs is missing")?;
    let target = target.ok_or("target=PATH is missing")?;
    let source = match (kind, source) {
        (MountKind::Bind, Some(path)) => Some(absolute(path)?),
        (MountKind::Bind, None) => return Err("source=PATH is missing".to_owned()),
        (MountKind::Tmpfs, None) => None,
        (MountKind::Tmpfs, Some(_)) => return Err("a tmpfs has no source".to_owned()),
    };
    let mut mount = new(kind, source, target);
    for part in rest {
        mount_option(&mut mount, part)?;
    }
    Ok(mount)
}

fn mount_option(mount: &mut MountConfig, part: &str) -> Result<(), String> {
    let bind = mount.kind == MountKind::Bind;
    let (key, value) = part.split_once('=').unwrap_or((part, "true"));
    let truth = || match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("'{key}' must be true or false, not '{value}'")),
    };
    match key {
        "readonly" | "ro" => mount.read_only = truth()?,
        "bind-propagation" | "propagation" if bind => mount.propagation = Some(value.parse()?),
        "bind-nonrecursive" if bind => mount.recursive = Some(!truth()?),
        "bind-recursive" if bind => {
            mount.recursive = Some(!matches!(value, "disabled" | "false"));
        }
        "create" if bind => mount.create = truth()?,
        "idmap" if bind => mount.idmap = Some(truth()?),
        "tmpfs-size" | "size" if !bind => mount.size = Some(parse::size(value)?),
        "tmpfs-mode" | "mode" if !bind => mount.mode = Some(value.parse()?),
        _ if !part.contains('=') && common_option(mount, key) => {}
        _ => return Err(format!("unknown mount option '{part}'")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use littlebox_types::Propagation;

    use super::*;

    #[test]
    fn volumes() {
        let m = volume("/src:/dst:ro,rslave,noexec,create").unwrap();
        assert_eq!(
            (m.source.as_deref(), m.destination.as_str()),
            (Some("/src"), "/dst")
        );
        assert!(m.read_only && m.create && m.idmap.is_none());
        assert_eq!(volume("/a:/b:idmap").unwrap().idmap, Some(true));
        assert_eq!(volume("/a:/b:noidmap").unwrap().idmap, Some(false));
        assert_eq!(m.propagation, Some(Propagation::Rslave));
        assert_eq!(m.options, ["noexec"]);
        let here = std::env::current_dir().unwrap();
        let m = volume("./a:/b").unwrap();
        assert_eq!(m.source, Some(format!("{}/a", here.display())));
        for bad in ["/a", "/a:", ":/b", "name:/b", "/a:/b:what"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfses() {
        let m = tmpfs("/run:size=64m,mode=0755,noexec").unwrap();
        assert_eq!((m.size, m.mode), (Some(64 << 20), "0755".parse().ok()));
        assert_eq!(tmpfs("/run").unwrap().destination, "/run");
        assert!(tmpfs("/run:uid=1").is_err() && tmpfs("/run:mode=8").is_err());
    }

    #[test]
    fn mounts() {
        let m = mount("type=bind,src=/a,dst=/b,readonly,bind-nonrecursive").unwrap();
        assert!(m.read_only && m.recursive == Some(false));
        let m = mount("type=bind,src=/a,dst=/b,idmap=false").unwrap();
        assert_eq!(m.idmap, Some(false));
        let m = mount(r#"type=bind,"src=/a,b ""c""",dst=/b,ro"#).unwrap();
        assert_eq!(m.source.as_deref(), Some("/a,b \"c\""));
        assert!(m.read_only);
        let m = mount("type=tmpfs,target=/t,tmpfs-size=1g,tmpfs-mode=1777").unwrap();
        assert_eq!((m.size, m.mode), (Some(1 << 30), "1777".parse().ok()));
        for bad in [
            "src=/a,dst=/b",
            "type=bind,dst=/b",
            "type=bind,src=/a",
            "type=volume,src=a,dst=/b",
            "type=tmpfs,src=/a,dst=/b",
            "type=tmpfs,dst=/b,bind-nonrecursive",
            "type=tmpfs,dst=/b,tmpfs-mode=4755",
            "type=bind,src=/a,dst=/b,bind-propagation=both",
            "type=bind,src=/a,dst=/b,readonly=maybe",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }
}
