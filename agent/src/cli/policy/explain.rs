//! `agent policy explain`: whether one reaches another, and by which rule.

use crate::{
    cli::{
        failure::Failure,
        output::{Detail, Output},
        show::{Cell, Column, Table},
    },
    control::{
        Client,
        policy::{PolicyExplainRequest, PolicyPair},
    },
};

/// Say whether one reaches another, and by which rule.
///
/// Names of nodes, devices and services, groups and addresses can be given. Shows
/// the rule that allows it, or that none does, on which nodes that is enforced, and
/// how many packets this one let pass by that rule.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Who reaches, such as ben-phone, group:kids or 192.168.5.7.
    #[arg(value_name = "FROM")]
    from: String,
    /// What is reached, such as nextcloud, mail:25 or bravo:tcp/22.
    #[arg(value_name = "TO:PORT")]
    to: String,
    #[command(flatten)]
    detail: Detail,
    #[command(flatten)]
    output: Output,
}

pub async fn explain(arguments: &Arguments, client: &Client) -> Result<(), Failure> {
    let Arguments {
        from,
        to,
        detail,
        output,
    } = arguments;
    let request = PolicyExplainRequest {
        from: from.clone(),
        to: to.clone(),
    };
    let explained = client.ask(&request).await?;
    output.show(*detail, &explained, |screen| {
        let mut table = Table::new([
            Column::whole("FROM"),
            Column::whole("TO"),
            Column::whole("PORTS"),
            Column::whole("ALLOWED"),
            Column::new("BY"),
            Column::new("ENFORCED ON"),
            Column::whole("PACKETS HERE"),
        ]);
        for pair in &explained.pairs {
            table.add(row(pair));
        }
        screen.table(&table);
        if explained.more {
            screen.paragraph("There are more pairs; name fewer at once.\n");
        }
    })
}

fn row(pair: &PolicyPair) -> [Cell; 7] {
    let allowed = if pair.allowed {
        Cell::good("yes")
    } else {
        Cell::bad("no")
    };
    [
        Cell::new(&pair.from),
        Cell::new(&pair.to),
        Cell::new(&pair.ports),
        allowed,
        Cell::new(pair.by.as_deref().unwrap_or("no rule")),
        Cell::new(pair.enforced_on.join(" ")),
        Cell::or_dash(pair.packets),
    ]
}
