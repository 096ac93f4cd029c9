//! `agent record`: users' DNS records.

use innermesh_proto::{
    ledger::record::{RecordData, RecordDataError},
    limits,
    name::MeshDomain,
    zone::{DomainName, RecordType, RecordTypeError},
};

use super::{
    failure::{Failure, TIMED_OUT},
    output::{Detail, Output, well, yes_no},
    show::{Cell, Column, Screen, Table},
};
use crate::control::{
    Client,
    node::StatusRequest,
    records::{RecordAddRequest, RecordListRequest, RecordRmRequest, RecordRow, SinkholeRow},
};
use crate::host::duration::Span;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Add(AddArguments),
    Rm(RmArguments),
    #[command(visible_alias = "ls")]
    List(ListArguments),
}

/// Add a DNS record, such as A, CNAME, TXT, MX or HTTPS.
///
/// It is answered on every node, and outlives this one. Several records of one
/// name and type stand beside each other; one that is there already gets the TTL
/// and the readers that are given now. A node may add records at and below
/// its own names, an admin everywhere.
///
/// A node's records lead to its own addresses and names, to names that their
/// owners share with it, and to what its invite granted with --addresses. An
/// admin's lead anywhere.
///
/// A TXT record of _acme-challenge.NAME with --public is there once the sinkholes
/// that answer strangers' DNS were seen to answer with it; where one that is there
/// doesn't within 15 s, the command ends with exit code 4.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// Full name, name in the mesh's domain, or @ for the domain.
    #[arg(value_name = "NAME")]
    name: String,
    /// A, AAAA, CNAME, TXT, SRV, MX, CAA, HTTPS, SVCB, SSHFP, TLSA.
    #[arg(value_name = "TYPE", value_parser = record_type)]
    rtype: RecordType,
    /// Value of the record, as in a zone file.
    ///
    /// An address, a name, a text, `PRIORITY WEIGHT PORT HOST`, `PREFERENCE
    /// HOST`, `FLAGS TAG VALUE` or `PRIORITY HOST alpn=h2`, where the host `.` is
    /// the name itself; SSHFP as `ssh-keygen -r` prints it, `ALGORITHM TYPE DIGEST`,
    /// and TLSA `USAGE SELECTOR MATCHING DATA`, both in hexadecimal. A host without a
    /// dot is one of the mesh. A text is one string, or several in quotes of their
    /// own: '"one" "two"'; \" and \195 are escapes. What `record list` shows can be
    /// given here.
    #[arg(value_name = "VALUE", required = true, num_args = 1.., allow_hyphen_values = true)]
    value: Vec<String>,
    /// How long others may keep it, such as 300 or 1h [default: 30].
    #[arg(long, value_name = "TIME")]
    ttl: Option<Span>,
    /// Also answer this to clients outside the mesh.
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    output: Output,
}

/// Remove the records of a name and type, or one of them.
#[derive(Debug, clap::Args)]
pub struct RmArguments {
    /// As it was given to add, or its full name.
    #[arg(value_name = "NAME")]
    name: String,
    /// Type of the records.
    #[arg(value_name = "TYPE", value_parser = record_type)]
    rtype: RecordType,
    /// Value of the one record to remove, as given to add.
    #[arg(value_name = "VALUE", num_args = 0.., allow_hyphen_values = true)]
    value: Vec<String>,
    #[command(flatten)]
    output: Output,
}

/// Show the records that were added.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

/// Not the type of a record that can be added.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum TypeError {
    #[error(transparent)]
    Unknown(#[from] RecordTypeError),
    #[error(transparent)]
    NotAdded(#[from] RecordDataError),
}

fn record_type(text: &str) -> Result<RecordType, TypeError> {
    let rtype: RecordType = text.parse()?;
    RecordData::check_type(rtype)?;
    Ok(rtype)
}

pub async fn run(command: Command, client: &Client) -> Result<(), Failure> {
    match command {
        Command::Add(arguments) => add(arguments, client).await,
        Command::Rm(arguments) => rm(arguments, client).await,
        Command::List(arguments) => list(&arguments, client).await,
    }
}

async fn domain(client: &Client) -> Result<MeshDomain, Failure> {
    let status = client.ask(&StatusRequest {}).await?;
    status.domain.parse().map_err(Failure::failed)
}

/// A value may begin with a hyphen, as an ACME challenge's does now and then, so
/// options behind it come as a part of it.
struct Settled {
    value: Vec<String>,
    ttl: Option<Span>,
    public: bool,
    json: bool,
}

impl Settled {
    fn of(words: Vec<String>, takes_ttl: bool) -> Result<Self, Failure> {
        let mut settled = Self {
            value: Vec::new(),
            ttl: None,
            public: false,
            json: false,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--public" if takes_ttl => settled.public = true,
                "--json" => settled.json = true,
                "--ttl" if takes_ttl => {
                    let time = words.next().unwrap_or_default();
                    settled.ttl = Some(time.parse().map_err(Failure::usage)?);
                }
                other => match other.strip_prefix("--ttl=").filter(|_| takes_ttl) {
                    Some(time) => settled.ttl = Some(time.parse().map_err(Failure::usage)?),
                    None => settled.value.push(word),
                },
            }
        }
        Ok(settled)
    }
}

impl AddArguments {
    fn settled(mut self) -> Result<Self, Failure> {
        let Settled {
            value,
            ttl,
            public,
            json,
        } = Settled::of(self.value, true)?;
        self.value = value;
        self.ttl = ttl.or(self.ttl);
        self.public |= public;
        self.output.json |= json;
        if self.value.is_empty() {
            Err(Failure::usage("what the record says is missing"))
        } else {
            Ok(self)
        }
    }

    fn ttl_s(&self) -> Result<Option<u32>, Failure> {
        let Some(Span(seconds)) = self.ttl else {
            return Ok(None);
        };
        let ttl_s = u32::try_from(seconds).ok();
        match ttl_s.filter(|ttl_s| *ttl_s <= limits::RECORD_TTL_S) {
            Some(ttl_s) => Ok(Some(ttl_s)),
            None => Err(Failure::usage("a record may be kept for a week at most")),
        }
    }
}

async fn add(arguments: AddArguments, client: &Client) -> Result<(), Failure> {
    let arguments = arguments.settled()?;
    let domain = domain(client).await?;
    let name = owner(&arguments.name, &domain)?;
    let value = full_value(arguments.rtype, &arguments.value.join(" "), &domain);
    RecordData::parse(arguments.rtype, &value).map_err(Failure::usage)?;
    let record = RecordAddRequest {
        name: name.to_string(),
        rtype: arguments.rtype.to_string(),
        value,
        ttl_s: arguments.ttl_s()?,
        public: arguments.public,
    };
    let row = client.ask(&record).await?;
    arguments.output.print(&row, || {
        let whom = if row.public {
            ", for strangers too"
        } else {
            ""
        };
        let RecordRow {
            name, rtype, value, ..
        } = &row;
        let told = if row.answered {
            format!("{name} {rtype} {value} is answered on every machine{whom}\n")
        } else {
            format!(
                "{name} {rtype} {value} is kept and not answered: a service, a node or an alias of \
                 that name comes first; see `agent dns query {name}`\n"
            )
        };
        told + &sinkholes(&row.sinkholes)
    })?;
    let is_late = |sinkhole: &SinkholeRow| sinkhole.live && !sinkhole.serves;
    if row.sinkholes.iter().any(is_late) {
        Err(Failure::silent(TIMED_OUT))
    } else {
        Ok(())
    }
}

/// What each was seen to answer.
fn sinkholes(rows: &[SinkholeRow]) -> String {
    let line = |row: &SinkholeRow| {
        let node = &row.node;
        match &row.error {
            None => format!("{node} serves it to strangers\n"),
            Some(why) => format!("{node} wasn't seen to serve it to strangers: {why}\n"),
        }
    };
    rows.iter().map(line).collect()
}

async fn rm(arguments: RmArguments, client: &Client) -> Result<(), Failure> {
    let RmArguments {
        name,
        rtype,
        value,
        mut output,
    } = arguments;
    let Settled { value, json, .. } = Settled::of(value, false)?;
    output.json |= json;
    let domain = domain(client).await?;
    let name = owner(&name, &domain)?;
    let value = (!value.is_empty()).then(|| full_value(rtype, &value.join(" "), &domain));
    if let Some(value) = &value {
        RecordData::parse(rtype, value).map_err(Failure::usage)?;
    }
    let removed = RecordRmRequest {
        name: name.to_string(),
        rtype: rtype.to_string(),
        value,
    };
    client.ask(&removed).await?;
    output.print(&removed, || match &removed.value {
        Some(value) => format!("{name} has no {rtype} record {value} any more\n"),
        None => format!("{name} has no {rtype} record any more\n"),
    })
}

async fn list(arguments: &ListArguments, client: &Client) -> Result<(), Failure> {
    let ListArguments { detail, output } = *arguments;
    let records = client.ask(&RecordListRequest {}).await?;
    output.show(detail, &records, |screen| draw(screen, &records))
}

fn draw(screen: &mut Screen, records: &[RecordRow]) {
    if records.is_empty() {
        return screen.say("no record was added; `agent record add NAME TYPE VALUE` adds one\n");
    }
    let mut table = Table::new([
        Column::whole("NAME"),
        Column::whole("TYPE"),
        Column::new("VALUE"),
        Column::extra("TTL"),
        Column::whole("PUBLIC"),
        Column::whole("ANSWERED"),
        Column::new("BY"),
    ]);
    for record in records {
        table.add([
            Cell::new(&record.name),
            Cell::new(&record.rtype),
            Cell::new(&record.value),
            Cell::new(record.ttl_s),
            Cell::new(yes_no(record.public)),
            well(record.answered),
            Cell::new(&record.owner),
        ]);
    }
    screen.table(&table.sorted());
}

/// The name that a record stands at: below the mesh's domain.
fn owner(typed: &str, domain: &MeshDomain) -> Result<DomainName, Failure> {
    let lower = typed.to_ascii_lowercase();
    let full = match lower.strip_suffix('.') {
        Some(full) => full.to_string(),
        None if lower == "@" || lower == domain.as_str() => domain.to_string(),
        None if domain.contains(&lower) => lower,
        None if is_foreign(&lower, domain) => {
            return Err(Failure::usage(format!(
                "{lower} is not below {domain}; records of other domains belong to their own name \
                 servers. If you mean {lower}.{domain}, write it in full"
            )));
        }
        None => format!("{lower}.{domain}"),
    };
    if full != domain.as_str() && !domain.contains(&full) {
        return Err(Failure::usage(format!(
            "{full} is not below {domain}; records of other domains belong to their own name servers"
        )));
    }
    full.parse().map_err(Failure::usage)
}

/// Whether a name looks like a full one of another domain: short names have at
/// most one dot, but for those of services (RFC 2782).
fn is_foreign(lower: &str, domain: &MeshDomain) -> bool {
    let own_top = domain.as_str().rsplit('.').next();
    let dots = lower.matches('.').count();
    let of_service = lower.split('.').any(|label| label.starts_with('_'));
    dots > 1 && !of_service || dots > 0 && lower.rsplit('.').next() == own_top
}

/// The value with a full name where it has a host: one without a dot is of the
/// mesh.
fn full_value(rtype: RecordType, value: &str, domain: &MeshDomain) -> String {
    let value = value.trim();
    let mut words: Vec<&str> = value.split_whitespace().collect();
    let host = match rtype {
        RecordType::CNAME => words.first_mut(),
        RecordType::MX | RecordType::HTTPS | RecordType::SVCB => words.get_mut(1),
        RecordType::SRV => words.get_mut(3),
        _ => None,
    };
    match host {
        Some(host) if !host.contains('.') => {
            let full = format!("{host}.{domain}");
            *host = &full;
            words.join(" ")
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> MeshDomain {
        "in.example.org".parse().unwrap()
    }

    #[test]
    fn a_short_name_gets_the_domain_and_a_foreign_one_is_refused() {
        for (typed, full) in [
            ("tv", "tv.in.example.org."),
            ("@", "in.example.org."),
            ("IN.example.org", "in.example.org."),
            ("_dmarc", "_dmarc.in.example.org."),
            ("a.b", "a.b.in.example.org."),
            ("_imaps._tcp.mail", "_imaps._tcp.mail.in.example.org."),
            ("tv.in.example.org", "tv.in.example.org."),
            ("tv.in.example.org.", "tv.in.example.org."),
        ] {
            assert_eq!(owner(typed, &domain()).unwrap().to_string(), full);
        }
        for typed in [
            "tv.example.com.",
            "tv.example.com",
            "example.org",
            "",
            "a..b",
            "example.org.",
        ] {
            let failure = owner(typed, &domain()).unwrap_err();
            assert_eq!(failure.code, super::super::failure::USAGE, "{typed}");
        }
    }

    #[test]
    fn records_fit_the_terminal_and_are_sorted() {
        let row = |name: &str, rtype: &str, value: &str| RecordRow {
            name: name.into(),
            rtype: rtype.into(),
            value: value.into(),
            ttl_s: 30,
            public: false,
            owner: "raspberry-pi-in-the-garage-02".into(),
            answered: true,
            sinkholes: Vec::new(),
        };
        let key = format!(
            "\"v=DKIM1; k=rsa; p={}\"",
            "MIIBIjANBgkqhkiG9w0B".repeat(20)
        );
        let records = [
            row(
                "tv.in.example.org",
                "AAAA",
                "fd12:3456:789a:bcde:f012:3456:789a:bcde",
            ),
            row("tv.in.example.org", "A", "192.0.2.9"),
            row("mail._domainkey.in.example.org", "TXT", &key),
        ];
        let text = crate::cli::show::fits(|screen| draw(screen, &records));
        assert!(
            text.contains("mail._domainkey.in.example.org  TXT"),
            "{text}"
        );
        assert!(text.find(" A ") < text.find(" AAAA "), "{text}");
    }

    #[test]
    fn each_sinkhole_is_told_of_as_it_was_seen() {
        let row = |node: &str, error: Option<&str>| SinkholeRow {
            node: node.into(),
            addresses: Vec::new(),
            live: true,
            serves: error.is_none(),
            error: error.map(str::to_owned),
        };
        let rows = [row("vps", None), row("vps2", Some("no answer"))];
        assert_eq!(
            sinkholes(&rows),
            "vps serves it to strangers\nvps2 wasn't seen to serve it to strangers: no answer\n"
        );
    }

    #[test]
    fn a_host_without_a_dot_is_one_of_the_mesh() {
        let full = |rtype: &str, value| full_value(rtype.parse().unwrap(), value, &domain());
        assert_eq!(full("CNAME", "nas"), "nas.in.example.org");
        assert_eq!(full("CNAME", "nas.example.com"), "nas.example.com");
        assert_eq!(full("MX", "10 mail"), "10 mail.in.example.org");
        assert_eq!(full("MX", "0 ."), "0 .");
        assert_eq!(full("TXT", "word"), "word");
        assert_eq!(full("SRV", "0 0 80 web"), "0 0 80 web.in.example.org");
        assert_eq!(
            full("HTTPS", "1 web alpn=h2"),
            "1 web.in.example.org alpn=h2"
        );
        assert_eq!(full("HTTPS", "1 . alpn=h2"), "1 . alpn=h2");
        assert_eq!(full("SVCB", "0 svc"), "0 svc.in.example.org");
    }

    #[test]
    fn options_behind_a_value_are_options() {
        let words = |text: &str| text.split(' ').map(String::from).collect();
        let settled = Settled::of(words("-x --ttl 1h a --public --json"), true).unwrap();
        assert_eq!(settled.value, ["-x", "a"]);
        assert_eq!(settled.ttl, Some(Span(3600)));
        assert!(settled.public && settled.json);
        assert_eq!(
            Settled::of(words("a --ttl=300"), true).unwrap().ttl,
            Some(Span(300))
        );
        for bad in ["a --ttl", "a --ttl=soon"] {
            assert!(Settled::of(words(bad), true).is_err(), "{bad}");
        }
        // What is to go may say that.
        let removed = Settled::of(words("--ttl --public"), false).unwrap();
        assert_eq!(removed.value, ["--ttl", "--public"]);
    }

    #[test]
    fn types_that_nobody_can_add_are_told_with_those_that_one_can() {
        let error = record_type("NS").unwrap_err().to_string();
        assert!(error.contains("A, AAAA, CNAME, TXT, SRV, MX, CAA, HTTPS, SVCB, SSHFP and TLSA"));
        assert!(record_type("nonsense").is_err());
        assert_eq!(record_type("caa"), Ok(RecordType::CAA));
        assert_eq!(record_type("https"), Ok(RecordType::HTTPS));
        assert_eq!(record_type("tlsa"), Ok(RecordType::TLSA));
    }
}
