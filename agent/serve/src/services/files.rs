//! What the files of `services.d` come to, as they are changed one by one while the
//! agent runs: pure.

use std::{collections::BTreeMap, fmt::Display, path::PathBuf};

use innermesh_control::{
    finding::{Finding, code},
    spec::Spec,
};
use innermesh_proto::{limits, name::Label};

/// Longest reason that is kept, in characters.
const REASON_CHARS: usize = 400;

/// The services of the files, each as it was when it last made sense.
#[derive(Debug, Default)]
pub struct ServiceFiles {
    good: BTreeMap<PathBuf, Spec>,
    problems: Vec<FileProblem>,
}

/// A file that isn't in force as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// Why not; with the file's name.
    pub reason: String,
    /// The service that the file described before, which stays.
    pub kept: Option<Label>,
}

impl FileProblem {
    pub(super) fn finding(&self) -> Finding {
        let what = match &self.kept {
            Some(name) => format!("the service {name} stays as it was before"),
            None => "no service comes of it".to_owned(),
        };
        Finding::warning(
            code::SERVICE_FILE,
            format!("{}; {what}", self.reason),
            "Mend or remove the file; `agent config check` shows all that is wrong",
        )
    }
}

impl ServiceFiles {
    /// Takes the files as they are now, all of them. One that makes no sense, or
    /// describes a service that stands in another, leaves what it described before;
    /// one that is gone leaves nothing.
    pub fn take<E: Display>(&mut self, files: BTreeMap<PathBuf, Result<Spec, E>>) {
        let before = std::mem::take(&mut self.good);
        self.problems.clear();
        let mut names: BTreeMap<Label, PathBuf> = BTreeMap::new();
        // What a file described before stands before what others describe now.
        let (stays, comes): (Vec<_>, Vec<_>) = files.into_iter().partition(|(file, read)| {
            let old = before.get(file).map(|spec| &spec.name);
            old.is_some() && read.as_ref().map_or(old, |spec| Some(&spec.name)) == old
        });
        for (file, read) in stays.into_iter().chain(comes) {
            let old = before.get(&file);
            let why = match read {
                Ok(spec) => match self.room_for(&spec.name, &names) {
                    None => {
                        names.insert(spec.name.clone(), file.clone());
                        self.good.insert(file, spec);
                        continue;
                    }
                    Some(why) => format!("{}: {why}", file.display()),
                },
                Err(error) => error.to_string(),
            };
            let kept = old.filter(|old| self.room_for(&old.name, &names).is_none());
            self.problems.push(FileProblem {
                reason: why.chars().take(REASON_CHARS).collect(),
                kept: kept.map(|old| old.name.clone()),
            });
            if let Some(old) = kept {
                names.insert(old.name.clone(), file.clone());
                self.good.insert(file, old.clone());
            }
        }
    }

    fn room_for(&self, name: &Label, names: &BTreeMap<Label, PathBuf>) -> Option<String> {
        if let Some(other) = names.get(name) {
            return Some(format!(
                "the service {name} stands in {} already",
                other.display()
            ));
        }
        let most = limits::NAMES_PER_NODE;
        (self.good.len() >= most).then(|| format!("more than {most} services; remove some"))
    }

    /// The services, in the order of their files.
    pub fn services(&self) -> Vec<Spec> {
        self.good.values().cloned().collect()
    }

    /// The files that aren't in force as they are.
    pub fn problems(&self) -> &[FileProblem] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(files: &mut ServiceFiles, all: &[(&str, &str)]) {
        let read = |text: &str| match text.split_once(' ') {
            Some((name, port)) => Ok(Spec::new(name.parse().unwrap(), port.parse().unwrap())),
            None => Err(format!("{text} makes no sense")),
        };
        let all = all
            .iter()
            .map(|(file, text)| (PathBuf::from(file), read(text)));
        files.take(all.collect());
    }

    fn shown(files: &ServiceFiles) -> Vec<String> {
        let all = files.services().into_iter();
        all.map(|spec| format!("{} {}", spec.name, spec.port))
            .collect()
    }

    #[test]
    fn a_broken_file_keeps_its_last_good_state_and_hides_no_other() {
        let mut files = ServiceFiles::default();
        take(&mut files, &[("a", "web 80"), ("b", "broken")]);
        assert_eq!(shown(&files), ["web 80"]);
        assert_eq!(files.problems()[0].kept, None);
        take(&mut files, &[("a", "broken"), ("b", "wiki 81")]);
        assert_eq!(shown(&files), ["web 80", "wiki 81"]);
        let finding = files.problems()[0].finding();
        assert!(
            finding.text.contains("the service web stays"),
            "{finding:?}"
        );
        take(&mut files, &[("a", "web 8080"), ("b", "wiki 81")]);
        assert_eq!(shown(&files), ["web 8080", "wiki 81"]);
        assert!(files.problems().is_empty());
        take(&mut files, &[("b", "wiki 81")]);
        assert_eq!(shown(&files), ["wiki 81"]);
    }

    #[test]
    fn a_service_belongs_to_the_file_that_had_it_first() {
        let mut files = ServiceFiles::default();
        take(&mut files, &[("b", "web 80")]);
        take(&mut files, &[("a", "web 81"), ("b", "web 82")]);
        assert_eq!(shown(&files), ["web 82"]);
        let why = &files.problems()[0].reason;
        assert!(
            why.contains("a: the service web stands in b already"),
            "{why}"
        );
        // Nor does a file lose its own by taking another's name.
        take(&mut files, &[("a", "wiki 81"), ("b", "web 82")]);
        take(&mut files, &[("a", "web 81"), ("b", "web 82")]);
        assert_eq!(shown(&files), ["wiki 81", "web 82"]);
        assert_eq!(files.problems()[0].kept, Some("wiki".parse().unwrap()));
        // A rename of the file keeps the service.
        take(&mut files, &[("c", "web 82")]);
        assert_eq!(shown(&files), ["web 82"]);
        assert!(files.problems().is_empty());
    }

    #[test]
    fn what_a_broken_file_described_goes_to_the_file_that_describes_it_now() {
        let mut files = ServiceFiles::default();
        take(&mut files, &[("a", "web 80"), ("b", "wiki 81")]);
        take(&mut files, &[("a", "wiki 82"), ("b", "broken")]);
        assert_eq!(shown(&files), ["web 80", "wiki 81"], "b keeps its own");
    }

    #[test]
    fn only_so_many_count() {
        let mut files = ServiceFiles::default();
        let all: Vec<(String, String)> = (0..=limits::NAMES_PER_NODE)
            .map(|n| (format!("{n:05}"), format!("s{n} 80")))
            .collect();
        let all: Vec<(&str, &str)> = all.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        take(&mut files, &all);
        assert_eq!(files.services().len(), limits::NAMES_PER_NODE);
        assert_eq!(files.problems().len(), 1);
    }
}
