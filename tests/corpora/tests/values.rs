//! Values of a few dozen types of the component model. `--bin values` tries as many as one likes.

use std::path::Path;

use corpora::components::{Campaign, Settings};

wasmpool::init_at_load!();

#[test]
fn values_are_what_they_were_and_lie_where_wasmtime_puts_them() {
    let keep = Path::new(env!("CARGO_TARGET_TMPDIR")).join("values");
    let settings = Settings { seed: 13, first: 0, count: 60, values: 50, workers: 2, keep };
    let summary = Campaign::run(&settings, || {}).expect("runs");
    println!("{summary}");
    summary.check().expect("nothing differs");
    for kind in ["record", "variant", "flags in one byte", "list", "flat arguments", "a flat result", "utf16"]
    {
        assert!(summary.seen(kind) > 0, "no type has {kind}");
    }
}
