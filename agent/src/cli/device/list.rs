//! `agent device list` and `show`.

use innermesh_proto::name::Label;
use serde::Serialize;

use crate::{
    cli::{
        failure::Failure,
        init,
        network::bytes,
        output::{Detail, Output, yes_no},
        show::{Cell, Column, Frame, Screen, Table, Watch, ago, until},
    },
    control::{
        Client,
        devices::{DeviceConfigured, DeviceListRequest, DeviceRow, DeviceShowRequest},
    },
};

/// Show all devices, and which have to be configured again.
#[derive(Debug, clap::Args)]
pub struct ListArguments {
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

/// Show a device and its configuration without the private key.
///
/// The pre-shared key is shown where this node is the gateway.
#[derive(Debug, clap::Args)]
pub struct ShowArguments {
    /// Name of the device.
    #[arg(value_name = "NAME")]
    name: Label,
    #[command(flatten)]
    output: Output,
}

pub async fn list(arguments: &ListArguments, client: &Client) -> Result<(), Failure> {
    let ListArguments {
        watch,
        detail,
        output,
    } = *arguments;
    let look = async || {
        let mut devices = client.ask(&DeviceListRequest {}).await?;
        let shown = output.render(detail, &devices, |screen| draw(screen, &devices))?;
        devices.iter_mut().for_each(without_ages);
        Ok(Frame {
            shown,
            news: format!("{devices:?}"),
            warnings: Vec::new(),
        })
    };
    watch.run(output, look).await
}

/// What goes on by itself is no news.
fn without_ages(device: &mut DeviceRow) {
    device.seen_s = device.seen_s.map(|_| 0);
    (device.rx_bytes, device.tx_bytes) = (0, 0);
}

fn draw(screen: &mut Screen, devices: &[DeviceRow]) {
    if devices.is_empty() {
        return screen.paragraph("there is no device; `agent device add NAME --qr` adds one");
    }
    let mut table = Table::new([
        Column::whole("DEVICE"),
        Column::whole("OWNER"),
        Column::new("ADDRESS"),
        Column::whole("GATEWAY"),
        Column::whole("SEEN"),
        Column::new("FROM"),
        Column::whole("RECEIVED"),
        Column::whole("SENT"),
        Column::extra("GATEWAYS"),
        Column::extra("ROUTES"),
        Column::extra("GROUPS"),
        Column::extra("ADDED"),
        Column::extra("ENDS"),
        Column::extra("KEY"),
    ]);
    for device in devices {
        let first = device.addresses.first();
        table.add([
            Cell::new(&device.name),
            Cell::new(&device.owner),
            Cell::or_dash(first).in_full(init::join(&device.addresses)),
            Cell::or_dash(device.gateway.as_ref()),
            seen(device),
            Cell::or_dash(device.endpoint),
            Cell::new(bytes(device.rx_bytes)),
            Cell::new(bytes(device.tx_bytes)),
            Cell::new(device.gateways.join(", ")),
            Cell::new(routes(device)),
            Cell::new(device.groups.join(", ")),
            Cell::new(device.added),
            Cell::new(
                device
                    .expires
                    .map_or_else(|| "never".to_owned(), |at| at.to_string()),
            ),
            Cell::new(&device.key),
        ]);
    }
    screen.table(&table.sorted());
    for device in devices {
        trouble(screen, device);
    }
}

fn seen(device: &DeviceRow) -> Cell {
    match device.seen_s {
        Some(age) => Cell::good(ago(age)),
        None => Cell::new("-"),
    }
}

fn routes(device: &DeviceRow) -> String {
    if device.full_tunnel {
        return "everything".into();
    }
    let routes: Vec<String> = device.routes.iter().map(ToString::to_string).collect();
    routes.join(", ")
}

/// Why a device has to be configured again, or has yet to be.
fn trouble(screen: &mut Screen, device: &DeviceRow) {
    let name = &device.name;
    if device.suspended {
        screen.say("\n");
        screen.paragraph(&format!(
            "{name} is cut off, and goes once a CA node can be reached"
        ));
        return;
    }
    if device.renewing {
        screen.say("\n");
        screen.paragraph(&format!(
            "{name} has yet to use its new key; the one before works until then"
        ));
    }
    if !device.stale.is_empty() {
        screen.say("\n");
        screen.paragraph(&format!(
            "{name} has to be configured again: {}; `agent device renew {name} --qr`",
            device.stale.join("; ")
        ));
    }
}

pub async fn show(arguments: &ShowArguments, client: &Client) -> Result<(), Failure> {
    /// As `--json` prints it.
    #[derive(Serialize)]
    struct Shown<'a> {
        device: &'a DeviceRow,
        configurations: Vec<ShownConfiguration<'a>>,
        warnings: &'a [String],
    }
    #[derive(Serialize)]
    struct ShownConfiguration<'a> {
        gateway: &'a str,
        config: String,
    }
    let name = arguments.name.clone();
    let told = client.ask(&DeviceShowRequest { name }).await?;
    let configurations = told.configurations.iter();
    let shown = Shown {
        device: &told.device,
        configurations: configurations
            .map(|it| ShownConfiguration {
                gateway: &it.gateway,
                config: it.text(None),
            })
            .collect(),
        warnings: &told.warnings,
    };
    let detail = Detail::default();
    arguments
        .output
        .show(detail, &shown, |screen| draw_one(screen, &told))
}

fn draw_one(screen: &mut Screen, told: &DeviceConfigured) {
    let device = &told.device;
    let now = screen.now();
    let came = match (&device.gateway, device.seen_s) {
        (Some(gateway), Some(age)) => {
            let from = device.endpoint.map(|from| format!(" from {from}"));
            format!(
                "{} by way of {gateway}{}",
                ago(age),
                from.unwrap_or_default()
            )
        }
        _ => "not within three minutes".to_owned(),
    };
    let list = |items: &[String]| {
        if items.is_empty() {
            "-".to_owned()
        } else {
            items.join(", ")
        }
    };
    let reaches = routes(device);
    let reaches = if reaches.is_empty() {
        "the mesh".to_owned()
    } else if device.full_tunnel {
        reaches
    } else {
        format!("the mesh, {reaches}")
    };
    screen.fields(&[
        ("name", device.fqdn.clone()),
        ("addresses", init::join(&device.addresses)),
        ("owner", device.owner.clone()),
        ("groups", list(&device.groups)),
        ("gateways", list(&device.gateways)),
        ("reaches", reaches),
        ("mesh's resolver", yes_no(device.dns)),
        ("seen", came),
        ("received", bytes(device.rx_bytes)),
        ("sent", bytes(device.tx_bytes)),
        ("key", device.key.clone()),
        ("added", device.added.to_string()),
        (
            "ends",
            device.expires.map_or_else(
                || "never".to_owned(),
                |at| format!("{at}, {}", until(now, at)),
            ),
        ),
    ]);
    trouble(screen, device);
    for configuration in &told.configurations {
        screen.say(&format!("\nby way of {}:\n\n", configuration.gateway));
        screen.say(&configuration.text(None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::show::fits, host::UnixTime};

    fn row(name: &str, stale: &[&str]) -> DeviceRow {
        DeviceRow {
            name: name.into(),
            id: "abcd".into(),
            fqdn: format!("{name}.in.example.org"),
            owner: "raspberry-pi-in-the-garage-02".into(),
            addresses: vec![
                "10.48.122.200".parse().unwrap(),
                "fd2e:4b1c:77aa:0:8d3f:21c4:9b70:55e1".parse().unwrap(),
            ],
            groups: vec!["family".into()],
            key: "k".repeat(44),
            gateways: vec!["oak".into(), "elm".into()],
            gateway: stale.is_empty().then(|| "oak".into()),
            seen_s: stale.is_empty().then_some(7),
            endpoint: "[2001:db8:1234:5678:9abc:def0:1234:5678]:51820"
                .parse()
                .ok(),
            rx_bytes: 12_345_678,
            tx_bytes: 99,
            routes: vec!["192.168.1.0/24".parse().unwrap()],
            full_tunnel: false,
            dns: true,
            added: UnixTime::from_ms(0),
            expires: None,
            renewing: !stale.is_empty(),
            suspended: false,
            stale: stale.iter().map(|why| (*why).to_owned()).collect(),
        }
    }

    #[test]
    fn devices_fit_the_terminal_and_what_is_stale_stands_below_with_the_remedy() {
        let stale = row(
            "tablet",
            &["oak has another WireGuard key", "elm is no gateway"],
        );
        let devices = [row("phone-of-somebody-with-a-long-name", &[]), stale];
        let text = fits(|screen| draw(screen, &devices));
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "tablet has to be configured again: oak has another WireGuard key; elm is no gateway; \
             `agent device renew tablet --qr`",
            "tablet has yet to use its new key",
        ] {
            assert!(words.contains(part), "{text}");
        }
        let none = fits(|screen| draw(screen, &[]));
        assert!(none.contains("there is no device"), "{none}");
    }

    #[test]
    fn what_goes_on_by_itself_is_no_news() {
        let (mut one, mut later) = (row("phone", &[]), row("phone", &[]));
        (later.seen_s, later.rx_bytes) = (Some(9), 100_000_000);
        without_ages(&mut one);
        without_ages(&mut later);
        assert_eq!(one, later);
    }
}
