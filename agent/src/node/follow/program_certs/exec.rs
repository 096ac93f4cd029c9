//! The commands after renewals, run until they succeed.

use std::time::Duration;

use crate::{
    host::{
        UnixTime,
        outside::{SetPlace, UserCommand},
    },
    node::follow::program_certs::keeper::CertKeeper,
    program_certs::{
        due, files,
        kept::{Failure, Kept},
    },
};

/// How long one may take.
const LIMIT: Duration = Duration::from_secs(60);

impl CertKeeper {
    /// Runs those that are due, one after the other.
    pub async fn run_due(&self) {
        let now = self.host.clock.now();
        let waiting: Vec<(SetPlace, Kept)> = {
            let entries = self.certs.entries();
            let due = entries
                .iter()
                .filter(|(_, entry)| entry.kept.exec_pending && now >= entry.exec_not_before);
            due.map(|(place, entry)| (place.clone(), entry.kept.clone()))
                .collect()
        };
        for (place, kept) in waiting {
            let Some(line) = kept.wish.exec.clone() else {
                continue;
            };
            let result = self.host.outside.run(&command(&place, &kept, line)).await;
            let failure = result.err().map(|error| error.to_string());
            self.note(&place, &kept, failure).await;
        }
    }

    /// Notes that a command was run, or why that failed.
    async fn note(&self, place: &SetPlace, run: &Kept, failure: Option<String>) {
        let (now, at_ms) = (self.host.clock.now(), self.host.clock.wall_ms());
        match &failure {
            None => tracing::info!(name = %place.stem, "the command after a renewal was run"),
            Some(why) => {
                tracing::warn!(name = %place.stem, why, "the command after a renewal failed; trying again");
            }
        }
        let kept = self.certs.with(place, |entry| {
            let kept = &mut entry.kept;
            // Renewed, or asked for otherwise, while it ran: it is run once more.
            if kept.serial != run.serial || kept.wish != run.wish {
                return None;
            }
            match failure {
                None => {
                    (kept.exec_pending, kept.exec_failures, kept.exec_failure) = (false, 0, None)
                }
                Some(why) => {
                    kept.exec_failures = kept.exec_failures.saturating_add(1);
                    kept.exec_failure = Some(Failure { at_ms, why });
                    entry.exec_not_before = now + due::pause(kept.exec_failures, kept.jitter);
                }
            }
            Some(kept.clone())
        });
        self.keep(kept.flatten()).await;
    }
}

fn command(place: &SetPlace, kept: &Kept, line: String) -> UserCommand {
    let path = |suffix| place.file(suffix).display().to_string();
    let names = &kept.wish.names;
    let ends = UnixTime::from_ms(kept.not_after_ms);
    UserCommand {
        line,
        uid: kept.uid,
        environment: vec![
            ("INNERMESH_NAME", names.first().cloned().unwrap_or_default()),
            ("INNERMESH_NAMES", names.join(" ")),
            ("INNERMESH_CERT", path(files::CERT)),
            ("INNERMESH_KEY", path(files::KEY)),
            ("INNERMESH_CHAIN", path(files::CHAIN)),
            ("INNERMESH_PEM", path(files::PEM)),
            (
                "INNERMESH_CA",
                place.folder.join(files::CA).display().to_string(),
            ),
            ("INNERMESH_SERIAL", kept.serial.clone()),
            ("INNERMESH_NOT_AFTER", ends.to_string()),
        ],
        limit: LIMIT,
    }
}
