//! The mesh's zones as files, one for each.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use innermesh_proto::zone::DomainName;
use serde::Serialize;

/// A zone that was written.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    pub zone: String,
    pub file: PathBuf,
}

/// Why a zone can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ZoneFileError {
    #[error("{0} is no zone of this mesh; it has {1}")]
    Unknown(String, String),
    #[error("{0} can't be written: {1}")]
    Write(PathBuf, io::Error),
}

/// The zone of this name, of all of them as one text.
pub fn of(all: &str, name: &str) -> Result<String, ZoneFileError> {
    let zones = split(all);
    let wanted = name.parse::<DomainName>().ok().map(|name| name.to_string());
    let mut found = zones.iter();
    if let Some((_, text)) = found.find(|(origin, _)| Some(*origin) == wanted.as_deref()) {
        return Ok(text.clone());
    }
    let origins: Vec<&str> = zones.iter().map(|(origin, _)| *origin).collect();
    Err(ZoneFileError::Unknown(name.into(), origins.join(", ")))
}

/// Writes each zone to a file of its own; a reader finds the old one or the new
/// one, whole.
pub fn write(all: &str, folder: &Path) -> Result<Vec<Written>, ZoneFileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| ZoneFileError::Write(path, error)
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let mut written = Vec::new();
    for (origin, text) in split(all) {
        // Origins are host names and reverse names: nothing in them is a path.
        let name = format!("{}.zone", origin.trim_end_matches('.'));
        let file = folder.join(&name);
        let beside = folder.join(format!(".{name}.new"));
        replace(&beside, &file, &text).map_err(failed(&file))?;
        written.push(Written {
            zone: origin.to_owned(),
            file,
        });
    }
    Ok(written)
}

fn replace(beside: &Path, file: &Path, text: &str) -> io::Result<()> {
    let mut opened = fs::File::create(beside)?;
    opened.write_all(text.as_bytes())?;
    opened.sync_all()?;
    fs::rename(beside, file)
}

/// Each zone begins with its SOA.
fn split(all: &str) -> Vec<(&str, String)> {
    let mut zones: Vec<(&str, String)> = Vec::new();
    for line in all.lines() {
        let mut fields = line.split(' ');
        let origin = fields.next().unwrap_or_default();
        if fields.nth(2) == Some("SOA") {
            zones.push((origin, String::new()));
        }
        if let Some((_, text)) = zones.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "lab.internal. 5 IN SOA ns.lab.internal. x. 1 2 3 4 5\n\
                       a.lab.internal. 30 IN A 10.77.0.1\n\
                       b.lab.internal. 30 IN TXT \"x IN SOA y\"\n\
                       77.10.in-addr.arpa. 5 IN SOA ns.lab.internal. x. 1 2 3 4 5\n\
                       1.0.77.10.in-addr.arpa. 30 IN PTR a.lab.internal.\n";

    #[test]
    fn a_zone_is_found_by_its_name() {
        let lab = of(ALL, "Lab.Internal").unwrap();
        assert_eq!(lab.lines().count(), 3);
        let reverse = of(ALL, "77.10.in-addr.arpa.").unwrap();
        assert!(reverse.starts_with("77.10.in-addr.arpa. 5 IN SOA "));
        assert!(reverse.ends_with(" PTR a.lab.internal.\n"));
        let error = of(ALL, "example.org").unwrap_err().to_string();
        assert!(
            error.contains("lab.internal., 77.10.in-addr.arpa."),
            "{error}"
        );
    }

    #[test]
    fn each_zone_is_written_to_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let zones = folder.path().join("zones");
        for _ in 0..2 {
            let written = write(ALL, &zones).unwrap();
            let names: Vec<&str> = written.iter().map(|file| file.zone.as_str()).collect();
            assert_eq!(names, ["lab.internal.", "77.10.in-addr.arpa."]);
            for Written { zone, file } in written {
                assert_eq!(fs::read_to_string(file).unwrap(), of(ALL, &zone).unwrap());
            }
        }
        assert_eq!(fs::read_dir(&zones).unwrap().count(), 2);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(write(ALL, &file).is_err());
    }
}
