//! Makes components of modules for WASI preview 1, by the adapters that wasmtime publishes.
//!
//! Cargo runs this without arguments, and then it tells the tests of this package where it is. They run it with
//! arguments (tests/support/componentize.rs): it takes a module from stdin, and its stdout is the component.

use std::env;
use std::error::Error;
use std::io::{self, Read as _, Write as _};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (world, adapter) = match arguments[..] {
        [] => {
            println!("cargo::rerun-if-changed=build.rs");
            println!("cargo::rustc-env=WASMPOOL_COMPONENTIZE={}", env::current_exe()?.display());
            return Ok(());
        }
        ["command"] => (None, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER),
        ["world", wit] => (Some(wit), WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER),
        _ => return Err("the arguments are `command`, or `world` and its text".into()),
    };
    let mut module = Vec::new();
    io::stdin().read_to_end(&mut module)?;
    if let Some(wit) = world {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("world.wit", wit)?;
        let world = resolve.select_world(&[package], None)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    let encoder = ComponentEncoder::default().validate(true).module(&module)?;
    let component = encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?.encode()?;
    io::stdout().write_all(&component)?;
    Ok(())
}
