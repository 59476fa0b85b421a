//! The rows as JSON: `name, ours, unit, floor, peer, ratio_floor, ratio_peer, goal, met`, null where
//! there is none, and after them what each figure was and how it varied.

use std::fmt::Write;

use crate::table::{Cell, Row};

fn text(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or("null".into(), |value| format!("{value:.6}"))
}

fn object(row: &Row) -> String {
    let figure = |cell: &Option<Cell>| cell.as_ref().and_then(|cell| cell.figure.clone().ok());
    let mut fields = vec![
        ("name".to_string(), text(&row.name)),
        ("ours".into(), number(figure(&row.ours).map(|figure| figure.value))),
        ("unit".into(), text(row.unit.name)),
        ("floor".into(), number(figure(&row.floor).map(|figure| figure.value))),
        ("peer".into(), number(figure(&row.peer).map(|figure| figure.value))),
        ("ratio_floor".into(), number(row.ratio_floor)),
        ("ratio_peer".into(), number(row.ratio_peer)),
        ("goal".into(), row.goal.as_deref().map_or("null".into(), text)),
        ("met".into(), row.met.map_or("null".into(), |met| met.to_string())),
        ("title".into(), text(&row.title)),
        ("rounds".into(), row.rounds.to_string()),
    ];
    for (name, cell) in [("ours", &row.ours), ("floor", &row.floor), ("peer", &row.peer)] {
        let Some(cell) = cell else { continue };
        fields.push((format!("{name}_name"), text(&cell.label)));
        match &cell.figure {
            Ok(figure) => {
                fields.push((format!("{name}_min"), number(Some(figure.least))));
                fields.push((format!("{name}_max"), number(Some(figure.most))));
            }
            Err(why) => fields.push((format!("{name}_missing"), text(why))),
        }
    }
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}: {value}", text(name))).collect();
    format!("  {{{}}}", fields.join(", "))
}

pub(crate) fn list(rows: &[Row]) -> String {
    let objects: Vec<String> = rows.iter().map(object).collect();
    format!("[\n{}\n]\n", objects.join(",\n"))
}
