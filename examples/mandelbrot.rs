//! A picture in tiles, drawn in parallel and put together as a PGM file.

use wasmpool::Schema;

#[derive(serde::Serialize, Schema)]
struct Tile {
    left: f64,
    top: f64,
    step: f64,
    width: u32,
    height: u32,
    iterations: u32,
}

#[derive(serde::Deserialize, Schema)]
struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = wasmpool::Pool::builder().build()?;
    let draw = pool.load_file("prebuilt/mandelbrot.wasm")?.task::<Tile, Image>("tile")?;

    let width = 480;
    let height = 360;
    let rows = 24;
    let step = 3.0 / f64::from(width);
    let strips = (0..height / rows).map(move |strip| Tile {
        left: -2.2,
        top: -1.125 + f64::from(strip * rows) * step,
        step,
        width,
        height: rows,
        iterations: 200,
    });
    let mut pixels = Vec::new();
    for image in pool.map(&draw, strips) {
        let image = image?;
        anyhow::ensure!((image.width, image.height) == (width, rows), "a tile has another size");
        pixels.extend(image.pixels);
    }
    let path = std::env::temp_dir().join("wasmpool-mandelbrot.pgm");
    let header = format!("P5 {width} {height} 255\n").into_bytes();
    std::fs::write(&path, [header, pixels].concat())?;
    println!("{width}×{height} pixels in {}", path.display());
    Ok(())
}
