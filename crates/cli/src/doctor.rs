//! `wasmpool doctor`: what of this machine matters, how workers lock themselves down here, and what comes
//! of attacking that.

pub(super) mod machine;

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::args::DoctorArgs;
use super::console;
use super::exit::{Exit, Failure};
use super::object::{self, Object};
use super::settings::Settings;
use machine::Check;
use proto::text::Name;
use wasmpool::sandbox::{AttackOutcome, AttackReport, Doctor, DoctorReport, LayerReport};

const HEADING: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

pub(super) fn doctor(args: &DoctorArgs, settings: &Settings) -> Result<Exit, Failure> {
    let mut doctor = Doctor::new();
    if let Some(policy) = settings.sandbox {
        doctor = doctor.sandbox(policy);
    }
    if let Some(only) = args.only {
        doctor = doctor.only(only);
    }
    if let Some(access) = args.dirs {
        doctor = doctor.with_dirs(access);
    }
    for layer in &args.without {
        doctor = doctor.sandbox_without(*layer);
    }
    let checks = machine::look(settings.workers, settings.cache_dir());
    let report = match doctor.run() {
        Ok(report) => report,
        Err(error) => return untried(args, &checks, error.into()),
    };
    let has_holes = report.holes().next().is_some();
    if args.json {
        let holes: Vec<_> = report.holes().map(|attack| &attack.name).collect();
        let value = json!({ "ok": !has_holes, "holes": holes, "machine": checks, "report": report });
        let mut line = String::new();
        json::push_value(&mut line, &value);
        console::print_line(&line)?;
    } else {
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = write_machine(&mut page, &checks).and_then(|()| write_page(&mut page, &report, args.all));
        console::print_page(page)?;
    }
    Ok(if has_holes { Exit::Task } else { Exit::Success })
}

/// The machine is looked at even if the sandbox cannot be tried, since that may say why.
fn untried(args: &DoctorArgs, checks: &[Check], failure: Failure) -> Result<Exit, Failure> {
    if args.json {
        let object = Object::new().field("ok", false).raw("error", &object::error(&failure));
        console::print_line(&object.field("machine", json!(checks)).finish())?;
        return Ok(failure.exit());
    }
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write_machine(&mut page, checks);
    console::print_page(page)?;
    Err(failure)
}

fn write_machine(page: &mut String, checks: &[Check]) -> fmt::Result {
    writeln!(page, "{HEADING}this machine{HEADING:#}")?;
    for Check { name, value, hint } in checks {
        let style = if hint.is_some() { BAD } else { GOOD };
        writeln!(page, "  {style}{name:<14}{style:#}  {}", Name(value))?;
        if let Some(hint) = hint {
            writeln!(page, "  {:<14}  {HEADING}hint:{HEADING:#} {}", "", Name(hint))?;
        }
    }
    writeln!(page)
}

fn write_page(page: &mut String, report: &DoctorReport, all: bool) -> fmt::Result {
    writeln!(page, "{HEADING}layers{HEADING:#}, policy `{}`", report.sandbox.policy)?;
    writeln!(page, "  {DIM}{:<14}  {:<7}  {:<8}  what{DIM:#}", "layer", "stands", "verified")?;
    for layer in &report.sandbox.layers {
        let LayerReport { layer: name, reason, .. } = layer;
        let (style, stands) = match (layer.requested, layer.applied) {
            (_, true) => (GOOD, "yes"),
            (true, false) => (BAD, "NO"),
            (false, false) => (DIM, "-"),
        };
        let (verified_style, verified) = match layer.verified {
            Some(true) => (GOOD, "yes"),
            Some(false) => (BAD, "NO"),
            None => (DIM, "-"),
        };
        write!(page, "  {name:<14}  {style}{stands:<7}{style:#}  ")?;
        writeln!(page, "{verified_style}{verified:<8}{verified_style:#}  {}", Name(reason))?;
    }
    let count = |what: fn(&AttackOutcome) -> bool| {
        report.attacks.iter().filter(|attack| what(&attack.outcome)).count()
    };
    let killed = count(|outcome| matches!(outcome, AttackOutcome::Killed(_)));
    let refused = count(|outcome| matches!(outcome, AttackOutcome::Refused(_)));
    let succeeded = count(|outcome| matches!(outcome, AttackOutcome::Succeeded(_)));
    writeln!(
        page,
        "\n{HEADING}attacks{HEADING:#}: {} tried, {killed} killed for it, {refused} refused, {succeeded} succeeded",
        report.attacks.len()
    )?;
    for attack in report.attacks.iter().filter(|attack| all || !attack.outcome.failed()) {
        write_attack(page, attack)?;
    }
    writeln!(page, "\n{HEADING}this system{HEADING:#}")?;
    for (name, value) in &report.system {
        writeln!(page, "  {name:<38}  {}", Name(value))?;
    }
    match report.holes().count() {
        0 => writeln!(page, "\n{GOOD}No attack came through a layer that is there to stop it.{GOOD:#}"),
        holes => writeln!(page, "\n{BAD}{holes} came through a layer that is there to stop them.{BAD:#}"),
    }
}

fn write_attack(page: &mut String, attack: &AttackReport) -> fmt::Result {
    let style = if attack.outcome.failed() { GOOD } else { BAD };
    let AttackReport { name, tries, outcome, .. } = attack;
    writeln!(page, "  {name:<22}  {style}{outcome}{style:#}  {DIM}{tries}{DIM:#}")
}
