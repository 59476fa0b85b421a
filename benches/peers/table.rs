//! Works that were run, as rows: one for each floor and peer, the goals in the first.

use crate::work::{Goal, Role, Side, Statistic, Unit, Work};

/// All figures of one side, in the unit shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// One side of a row: who, and its figure or why there is none.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) label: String,
    pub(crate) figure: Result<Figure, String>,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) rounds: usize,
    pub(crate) ours: Option<Cell>,
    pub(crate) floor: Option<Cell>,
    pub(crate) peer: Option<Cell>,
    /// Ours in floors: times take more than one, rates reach a part of it.
    pub(crate) ratio_floor: Option<f64>,
    /// The factor by which it is better than the peer.
    pub(crate) ratio_peer: Option<f64>,
    pub(crate) goal: Option<String>,
    /// `None` also if what it is held against is missing.
    pub(crate) met: Option<bool>,
}

fn value(cell: &Option<Cell>) -> Option<f64> {
    cell.as_ref()?.figure.as_ref().ok().map(|figure| figure.value)
}

fn figure(seen: &[f64], unit: Unit, statistic: Statistic) -> Option<Figure> {
    let mut seen: Vec<f64> = seen.iter().map(|value| value * unit.scale).collect();
    seen.sort_by(f64::total_cmp);
    let at = match statistic {
        Statistic::Median => seen.len() / 2,
        Statistic::P99 => (seen.len() * 99).div_ceil(100).saturating_sub(1),
    };
    Some(Figure { value: *seen.get(at)?, least: *seen.first()?, most: *seen.last()? })
}

/// Returns the geometric mean of the ratios to the first floors of the works whose names begin so, and their number.
pub(crate) fn geometric_mean(rows: &[Row], prefix: &str) -> Option<(f64, usize)> {
    let ratios: Vec<_> = rows
        .iter()
        .filter(|row| row.name.starts_with(prefix) && !row.title.is_empty())
        .filter_map(|row| row.ratio_floor)
        .collect();
    let logarithms: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| ((logarithms / ratios.len() as f64).exp(), ratios.len()))
}

/// The rows of a work that was run.
pub(crate) fn rows(work: &Work<'_>) -> Vec<Row> {
    let cell = |side: &Side<'_>| {
        let figure = match &side.run {
            Err(why) => Err(why.clone()),
            Ok(_) => figure(&side.seen, work.unit, work.statistic).ok_or_else(|| "it never ran".to_string()),
        };
        Cell { label: side.label.clone(), figure }
    };
    let of = |role| work.sides.iter().filter(move |side| side.role == role);
    let (floors, peers): (Vec<_>, Vec<_>) = (of(Role::Floor).collect(), of(Role::Peer).collect());
    let ours = of(Role::Ours).next();
    let count = floors.len().max(peers.len()).max(1);
    (0..count)
        .map(|index| {
            let floor = floors.get(index).copied();
            let peer = peers.get(index).copied();
            let name = match index {
                0 => work.name.clone(),
                _ => format!("{}/{}", work.name, index + 1),
            };
            let mut row = Row {
                name,
                title: if index == 0 { work.title.clone() } else { String::new() },
                unit: work.unit,
                rounds: ours.or(floor).or(peer).map_or(0, |side| side.seen.len()),
                ours: ours.map(cell),
                floor: floor.map(cell),
                peer: peer.map(cell),
                ratio_floor: None,
                ratio_peer: None,
                goal: None,
                met: None,
            };
            row.judge(if index == 0 { &work.goals } else { &[] });
            row
        })
        .collect()
}

impl Row {
    fn judge(&mut self, goals: &[Goal]) {
        let ours = value(&self.ours);
        let floor = value(&self.floor);
        let peer = value(&self.peer);
        self.ratio_floor = ours.zip(floor).map(|(ours, floor)| ours / floor);
        self.ratio_peer =
            ours.zip(peer).map(|(ours, peer)| if self.unit.is_rate { ours / peer } else { peer / ours });
        let unit = self.unit.name;
        let judged: Vec<(String, Option<bool>)> = goals
            .iter()
            .map(|goal| match *goal {
                Goal::FloorMost(most) => {
                    (format!("≤ {most} × floor"), self.ratio_floor.map(|ratio| ratio <= most))
                }
                Goal::FloorLeast(least) => {
                    (format!("≥ {least} × floor"), self.ratio_floor.map(|ratio| ratio >= least))
                }
                Goal::FloorAndMost(most) => {
                    let more = ours.zip(floor).map(|(ours, floor)| ours - floor <= most);
                    (format!("≤ floor + {most} {unit}"), more)
                }
                Goal::PeerLeast(least) => {
                    (format!("≥ {least} × peer"), self.ratio_peer.map(|ratio| ratio >= least))
                }
                Goal::Most(most) => (format!("≤ {most} {unit}"), ours.map(|ours| ours <= most)),
                Goal::Least(least) => (format!("≥ {least} {unit}"), ours.map(|ours| ours >= least)),
            })
            .collect();
        self.met = if judged.iter().any(|(_, met)| *met == Some(false)) {
            Some(false)
        } else if judged.is_empty() || judged.iter().any(|(_, met)| met.is_none()) {
            None
        } else {
            Some(true)
        };
        let texts: Vec<String> = judged.into_iter().map(|(text, _)| text).collect();
        self.goal = (!texts.is_empty()).then(|| texts.join(", "));
    }

    /// Returns what this row does without, and why.
    pub(crate) fn missing(&self) -> impl Iterator<Item = String> {
        [&self.ours, &self.floor, &self.peer].into_iter().flatten().filter_map(|cell| {
            let why = cell.figure.as_ref().err()?;
            Some(format!("{}: {}: {why}", self.name, cell.label))
        })
    }
}

const WIDTHS: [usize; 10] = [44, 8, 24, 9, 29, 9, 30, 8, 8, 27];

fn line(columns: [String; 11]) -> String {
    let mut line = String::new();
    for (index, (column, width)) in columns.iter().zip(WIDTHS.into_iter().chain([0])).enumerate() {
        let pad = " ".repeat(width.saturating_sub(column.chars().count()));
        // Numbers to the right, words to the left.
        let is_number = matches!(index, 3 | 5 | 7 | 8);
        line += &if is_number { format!("{pad}{column}") } else { format!("{column}{pad}") };
        line += " ";
    }
    line.trim_end().to_string()
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        at_least if at_least >= 100.0 => format!("{value:.0}"),
        at_least if at_least >= 10.0 => format!("{value:.1}"),
        at_least if at_least >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub(crate) fn heading() -> String {
    let columns =
        ["work", "unit", "ours (least–most)", "floor", "", "peer", "", "×floor", "×peer", "goal", "met"];
    line(columns.map(String::from))
}

pub(crate) fn shown(row: &Row) -> String {
    let cell = |cell: &Option<Cell>| match cell {
        None => (String::new(), String::new()),
        Some(Cell { label, figure: Ok(figure) }) => (number(figure.value), label.clone()),
        Some(Cell { label, figure: Err(_) }) => ("missing".into(), label.clone()),
    };
    let ours = match &row.ours {
        // The figure stands in the work's first row.
        _ if row.title.is_empty() => String::new(),
        Some(Cell { figure: Ok(Figure { value, least, most }), .. }) => {
            format!("{} ({}–{})", number(*value), number(*least), number(*most))
        }
        Some(Cell { figure: Err(why), .. }) => why.chars().take(24).collect(),
        None => String::new(),
    };
    let (floor, floor_label) = cell(&row.floor);
    let (peer, peer_label) = cell(&row.peer);
    let ratio = |ratio: Option<f64>| ratio.map(number).unwrap_or_default();
    let met = match (row.met, &row.goal) {
        (Some(true), _) => "yes",
        (Some(false), _) => "NO",
        (None, Some(_)) => "?",
        (None, None) => "",
    };
    let (name, unit) = if row.title.is_empty() {
        (format!("  {}", row.name), String::new())
    } else {
        (row.name.clone(), row.unit.name.to_string())
    };
    let goal = row.goal.clone().unwrap_or_default();
    line([
        name,
        unit,
        ours,
        floor,
        floor_label,
        peer,
        peer_label,
        ratio(row.ratio_floor),
        ratio(row.ratio_peer),
        goal,
        met.into(),
    ])
}
