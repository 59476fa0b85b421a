//! Has a module that is used again optimised, at the end of a command that was too short for it.

use std::path::Path;

use super::console::Console;
use super::interrupt;
use super::settings::Settings;
use proto::text::Name;
use wasmpool::Module;
use wasmpool::module::{ModuleOptions, Tier, Tiering};

/// A module's first use leaves quick code in the cache; a pool that lives long enough has replaced it by optimised code
/// since. Where none did, the second use does it here, once everything else is done: so a module that is used once never
/// pays for it, and one that is used often pays once. A signal ends the command at once.
pub(super) fn for_later_runs(
    module: &Module,
    path: &Path,
    options: ModuleOptions,
    settings: &Settings,
    console: &Console,
) {
    let was_used_before = module.tier() == Tier::Quick && module.from_cache();
    if !was_used_before || interrupt::exit().is_some() {
        return;
    }
    if !settings.quiet {
        console.say(&format!(
            "optimizing {} for later runs (once; Ctrl-C leaves it; --tiering says when)",
            Name(module.name())
        ));
    }
    interrupt::listen_no_longer();
    let optimized = settings.pool(Some(1)).map(|pool| {
        // A file that cannot be read twice, such as a pipe, is told nothing of: the command has done its work.
        pool.load_file_with(path, options.tiering(Tiering::Never)).map(|module| module.tier())
    });
    match optimized {
        Ok(Ok(tier)) => tracing::debug!(module = module.name(), tier = tier.name(), "a module was optimised"),
        Ok(Err(error)) => tracing::debug!(module = module.name(), %error, "a module was not optimised"),
        Err(error) => tracing::debug!(module = module.name(), %error, "a module was not optimised"),
    }
}
