//! What a person reads of renewals: rows of `cert list`, and warnings of
//! `status`.

use super::{files, kept::Kept};
use innermesh_control::{
    finding::{Finding, Severity, code},
    renewals::RenewalRow,
};
use innermesh_host::UnixTime;

/// So many failures in a row are a warning at once.
const LOUD: u32 = 3;
const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// How a renewal stands. `next_ms` is when it is tried next; none where that is
/// for nothing as things are.
pub fn row(kept: &Kept, next_ms: Option<u64>) -> RenewalRow {
    let place = kept.place();
    let time = UnixTime::from_ms;
    RenewalRow {
        name: place.stem.clone(),
        names: kept.wish.names.clone(),
        serial: kept.serial.clone(),
        not_after: time(kept.not_after_ms),
        cert: place.file(files::CERT),
        key: place.file(files::KEY),
        chain: place.file(files::CHAIN),
        pem: place.file(files::PEM),
        ca: place.folder.join(files::CA),
        next: next_ms.map(time),
        new_key: kept.wish.new_key,
        failures: kept.failures,
        last_error: kept.failure.as_ref().map(|failure| failure.why.clone()),
        last_error_at: kept.failure.as_ref().map(|failure| time(failure.at_ms)),
        exec: kept.wish.exec.clone(),
        exec_pending: kept.exec_pending,
        exec_error: kept.exec_failure.as_ref().map(|f| f.why.clone()),
        exec_error_at: kept.exec_failure.as_ref().map(|f| time(f.at_ms)),
    }
}

/// What somebody should do something about. `due_ms` is when the certificate
/// was, or is, to be renewed, where that is known.
pub fn findings(now_ms: u64, kept: &Kept, due_ms: Option<u64>, blocked: bool) -> Vec<Finding> {
    let name = kept.wish.names.first().map_or("", String::as_str);
    let is_over = was_seen(kept) && kept.not_after_ms <= now_ms;
    let finding = |text, remedy: String| {
        let severity = if is_over {
            Severity::Error
        } else {
            Severity::Warning
        };
        Finding::new(code::CERTIFICATE_NOT_RENEWED, severity, text, remedy)
    };
    let mut found = Vec::new();
    if let Some(failure) = &kept.failure {
        // Half of the time that was left for it.
        let late = due_ms.is_none_or(|due_ms| {
            now_ms >= due_ms.saturating_add(kept.not_after_ms.saturating_sub(due_ms) / 2)
        });
        let stem = &kept.wish.stem;
        let next = if blocked {
            format!("Then `agent cert renew {stem}` tries at once")
        } else {
            format!("It is tried again, and `agent cert renew {stem}` tries at once")
        };
        let times = match kept.failures {
            0 => String::new(),
            1 => " (once since the last success)".into(),
            times => format!(" ({times} times in a row)"),
        };
        if blocked || kept.failures >= LOUD || late {
            let text = format!(
                "{}the certificate of {name} can't be renewed{times}: {}",
                ends(now_ms, kept),
                failure.why
            );
            found.push(finding(text, next));
        }
    } else if is_over {
        found.push(finding(
            format!("the certificate of {name} has expired"),
            "It is renewed as soon as a CA node is reached".into(),
        ));
    }
    if let Some(failure) = &kept.exec_failure {
        found.push(Finding::warning(
            code::CERTIFICATE_COMMAND,
            format!(
                "the certificate of {name} was renewed, and the command after it failed at {}: {}; \
                 programs may still use the one before",
                UnixTime::from_ms(failure.at_ms),
                failure.why,
            ),
            format!(
                "It is run again; mend it with `agent cert issue {} --exec CMD`",
                kept.wish.stem
            ),
        ));
    }
    found
}

/// Whether its certificate was ever seen in its files. Until then nothing is known
/// of its end.
fn was_seen(kept: &Kept) -> bool {
    !kept.serial.is_empty()
}

/// How urgent it is.
fn ends(now_ms: u64, kept: &Kept) -> String {
    if !was_seen(kept) {
        return String::new();
    }
    let left_ms = kept.not_after_ms.saturating_sub(now_ms);
    match (left_ms / DAY_MS, left_ms / HOUR_MS) {
        _ if left_ms == 0 => "expired: ".into(),
        (0..2, hours) => format!("urgent, {} hours left: ", hours.max(1)),
        (2..7, hours) => format!("urgent, {} days left: ", hours / 24),
        (days, _) => format!("{days} days left: "),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::kept::{Failure, tests::kept},
        *,
    };

    const DUE: u64 = 60 * DAY_MS;

    fn warned(day: u64, failures: u32, blocked: bool) -> Vec<String> {
        let mut kept = kept();
        kept.failures = failures;
        kept.failure = (failures > 0 || blocked).then(|| Failure {
            at_ms: 0,
            why: "no CA node is reached".into(),
        });
        lines(day * DAY_MS, &kept, Some(DUE), blocked)
    }

    fn lines(now_ms: u64, kept: &Kept, due_ms: Option<u64>, blocked: bool) -> Vec<String> {
        let found = findings(now_ms, kept, due_ms, blocked);
        found.iter().map(Finding::sentence).collect()
    }

    #[test]
    fn a_failure_is_a_warning_when_it_repeats_and_when_half_of_the_time_is_over() {
        assert!(warned(61, 0, false).is_empty());
        assert!(warned(61, 2, false).is_empty());
        let repeated = &warned(61, 3, false)[0];
        assert!(repeated.starts_with("29 days left: "), "{repeated}");
        assert!(repeated.contains("(3 times in a row)"), "{repeated}");
        assert!(repeated.contains("agent cert renew"), "{repeated}");
        assert!(!warned(75, 1, false).is_empty());
        assert!(warned(86, 9, false)[0].starts_with("urgent, 4 days left"));
        assert!(warned(89, 9, false)[0].starts_with("urgent, 24 hours left"));
        assert!(warned(91, 9, false)[0].starts_with("expired: "));
        assert!(warned(91, 0, false)[0].contains("has expired"));
    }

    #[test]
    fn of_a_certificate_that_was_never_seen_no_end_is_told() {
        let mut kept = kept();
        (kept.serial, kept.not_after_ms) = (String::new(), 0);
        assert!(lines(DAY_MS, &kept, None, false).is_empty());
        kept.failure = Some(Failure {
            at_ms: 0,
            why: "no files".into(),
        });
        let told = lines(DAY_MS, &kept, None, true);
        assert!(told[0].starts_with("the certificate of"), "{told:?}");
    }

    #[test]
    fn a_row_names_the_files_of_its_certificate() {
        let row = row(&kept(), None);
        assert_eq!(row.names, kept().wish.names);
        let folder = std::path::Path::new("/etc/innermesh/certs");
        assert_eq!(row.pem, folder.join("photos.pem"));
        assert_eq!(row.ca, folder.join("ca.crt"));
    }

    #[test]
    fn what_no_time_mends_is_a_warning_at_once() {
        let lines = warned(1, 0, true);
        assert!(lines[0].contains("no CA node"), "{lines:?}");
        assert!(!lines[0].contains("tried again"), "{lines:?}");
    }

    #[test]
    fn a_command_that_failed_is_a_warning_at_once() {
        let mut kept = kept();
        kept.exec_failure = Some(Failure {
            at_ms: 0,
            why: "it ended with 1".into(),
        });
        let told = lines(DAY_MS, &kept, Some(DUE), false);
        assert!(told[0].contains("it ended with 1"), "{told:?}");
    }
}
