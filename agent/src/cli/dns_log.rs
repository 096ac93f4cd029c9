//! `agent dns log`.

use super::{
    failure::Failure,
    output::{self, Detail, Output},
    show::{Cell, Column, Screen, Table, harmless},
};
use crate::{
    control::{
        Client,
        dns::{
            DnsLogFollowRequest, DnsLogRequest, LogTransport, LoggedQuery, Origin, QueryLog,
            QueryTop,
        },
    },
    host::UnixTime,
};

/// Show what this node's resolver is asked.
///
/// Questions are kept only while somebody follows them with --follow: the first
/// one switches the log on, and some seconds after the last one has ended it is
/// off and empty again. It is in memory and bounded, and nothing of it is
/// written to disk. Without --follow it prints who asks most for what, and the
/// newest questions.
///
/// Questions of strangers to a sinkhole aren't in it.
#[derive(Debug, clap::Args)]
pub struct LogArguments {
    /// Print each question as it is answered, until stopped.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    output: Output,
}

/// Lines of each list without --follow.
const SHOWN: usize = 10;

pub async fn run(arguments: &LogArguments, client: &Client) -> Result<(), Failure> {
    if arguments.follow {
        return follow(arguments.output, client).await;
    }
    let log = client.ask(&DnsLogRequest {}).await?;
    let detail = Detail::default();
    arguments
        .output
        .show(detail, &log, |screen| draw(screen, &log))
}

/// Until somebody stops it, or the agent ends.
async fn follow(output: Output, client: &Client) -> Result<(), Failure> {
    let mut from = None;
    let mut last: Option<u64> = None;
    if !output.is_json() {
        output::note("following the questions to this node; Ctrl-C ends it");
    }
    loop {
        let log = client.ask(&DnsLogFollowRequest { from }).await?;
        let mut text = String::new();
        for entry in &log.entries {
            if output.is_json() {
                text.push_str(&serde_json::to_string(entry).map_err(Failure::failed)?);
            } else {
                let missing = missing(last, entry.number);
                if missing > 0 {
                    text.push_str(&format!(
                        "; {missing} questions are missing: too many came\n"
                    ));
                }
                text.push_str(&line(entry));
            }
            text.push('\n');
            last = Some(entry.number);
        }
        output::raw(&text)?;
        from = Some(log.next);
    }
}

/// Questions between the last one that was shown and this one; none after another run's.
fn missing(last: Option<u64>, number: u64) -> u64 {
    last.map_or(0, |last| number.saturating_sub(last + 1))
}

fn line(entry: &LoggedQuery) -> String {
    let LoggedQuery {
        client,
        name,
        rtype,
        rcode,
        ..
    } = entry;
    let transport = match entry.transport {
        LogTransport::Udp => "udp",
        LogTransport::Connection => "tcp",
    };
    let from = match entry.origin {
        None => "refused",
        Some(Origin::Zone) => "zone",
        Some(Origin::Rule) => "rule",
        Some(Origin::Cache) => "cache",
        Some(Origin::Stale) => "stale",
        Some(Origin::Upstream) => "upstream",
    };
    let at = clock(entry.at_ms);
    let ms = entry.elapsed_us.div_ceil(1000);
    let name = harmless(name);
    format!("{at} {client} {transport} {name} {rtype} {rcode} {from} {ms} ms")
}

/// The time of day, in UTC.
fn clock(ms: u64) -> String {
    let at = UnixTime::from_ms(ms).to_string();
    let of_day = at.get(11..19).unwrap_or_default();
    format!("{of_day}.{:03}Z", ms % 1000)
}

fn draw(screen: &mut Screen, log: &QueryLog) {
    if !log.is_on {
        return screen.paragraph(
            "no questions are kept; `agent dns log --follow` keeps them for as long as it runs",
        );
    }
    let since = log.since_ms.map(clock).unwrap_or_default();
    screen.say(&format!("{} questions since {since}", log.total));
    for (number, top) in log.rcodes.iter().chain(&log.origins).enumerate() {
        let before = if number == 0 { ": " } else { ", " };
        screen.say(&format!("{before}{} {}", top.count, top.what));
    }
    screen.say("\n");
    tops(screen, "NAME", &log.names);
    tops(screen, "CLIENT", &log.clients);
    if log.too_low_by > 0 {
        let by = log.too_low_by;
        screen.say("\n");
        screen.paragraph(&format!(
            "there are more names or clients than are counted: counts may be too low by {by}"
        ));
    }
    screen.say("\n");
    let skip = log.entries.len().saturating_sub(SHOWN);
    for entry in log.entries.iter().skip(skip) {
        screen.say(&line(entry));
        screen.say("\n");
    }
}

fn tops(screen: &mut Screen, title: &'static str, tops: &[QueryTop]) {
    screen.say("\n");
    let mut table = Table::new([Column::whole("COUNT"), Column::new(title)]);
    for top in tops.iter().take(SHOWN) {
        table.add([Cell::new(top.count), Cell::new(&top.what)]);
    }
    screen.table(&table);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::show::plain, control::dns::DnsView};

    fn entry(number: u64) -> LoggedQuery {
        LoggedQuery {
            number,
            at_ms: 3_723_004,
            client: [192, 168, 1, 20].into(),
            transport: LogTransport::Udp,
            name: "photos.in.example.org.".into(),
            rtype: "AAAA".into(),
            rcode: "NOERROR".into(),
            view: DnsView::Internal,
            origin: Some(Origin::Upstream),
            elapsed_us: 12_300,
        }
    }

    #[test]
    fn a_question_is_one_line() {
        assert_eq!(
            line(&entry(0)),
            "01:02:03.004Z 192.168.1.20 udp photos.in.example.org. AAAA NOERROR upstream 13 ms"
        );
        assert_eq!(
            (missing(None, 9), missing(Some(3), 4), missing(Some(3), 9)),
            (0, 0, 5)
        );
        assert_eq!(missing(Some(9), 0), 0);
    }

    #[test]
    fn who_asks_most_stands_above_the_newest_questions() {
        let top = |what: &str, count| QueryTop {
            what: what.into(),
            count,
        };
        let log = QueryLog {
            is_on: true,
            since_ms: Some(0),
            next: 20,
            total: 20,
            entries: (0..20).map(entry).collect(),
            names: vec![top("photos.in.example.org. AAAA", 19), top("a. A", 1)],
            clients: vec![top("192.168.1.20", 20)],
            too_low_by: 0,
            rcodes: vec![top("NOERROR", 20)],
            origins: vec![top("upstream", 20)],
        };
        let text = plain(|screen| draw(screen, &log));
        assert!(
            text.contains("20 questions since 00:00:00.000Z: 20 NOERROR, 20 upstream"),
            "{text}"
        );
        assert!(text.find("photos") < text.find("CLIENT"), "{text}");
        assert_eq!(text.matches(" upstream 13 ms").count(), SHOWN, "{text}");
        let off = plain(|screen| draw(screen, &QueryLog::default()));
        assert!(off.contains("no questions are kept"), "{off}");
    }
}
