//! The Mandelbrot set, one tile a task: the usual picture of work that splits.

/// A piece of the complex plane, and how finely to look at it.
#[wasmpool_guest::data]
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    /// The real part of the upper left corner.
    pub left: f64,
    /// The imaginary part of the upper left corner.
    pub top: f64,
    /// The distance from one pixel to the next.
    pub step: f64,
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// After so many steps without escape a point counts as inside.
    pub iterations: u32,
}

/// A greyscale picture.
#[wasmpool_guest::data]
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Pixels a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Row by row, one byte a pixel: 0 inside of the set, lighter the longer a
    /// point took to escape.
    pub pixels: Vec<u8>,
}

/// Draws one tile.
#[wasmpool_guest::task]
pub fn tile(tile: Tile) -> Image {
    let mut pixels = Vec::new();
    for row in 0..tile.height {
        let imaginary = tile.top - f64::from(row) * tile.step;
        for column in 0..tile.width {
            let real = tile.left + f64::from(column) * tile.step;
            let steps = escape(real, imaginary, tile.iterations);
            pixels.push(shade(steps, tile.iterations));
        }
    }
    Image { width: tile.width, height: tile.height, pixels }
}

/// After how many steps the point leaves for good, if it does.
fn escape(real: f64, imaginary: f64, iterations: u32) -> Option<u32> {
    let (mut x, mut y) = (0.0, 0.0);
    for step in 0..iterations {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > 4.0 {
            return Some(step);
        }
        y = 2.0 * x * y + imaginary;
        x = xx - yy + real;
    }
    None
}

fn shade(steps: Option<u32>, iterations: u32) -> u8 {
    match steps {
        None => 0,
        Some(steps) => (1 + u64::from(steps) * 254 / u64::from(iterations)) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Tile = Tile { left: -2.0, top: 1.0, step: 0.25, width: 12, height: 9, iterations: 100 };

    #[test]
    fn the_set_is_where_it_belongs() {
        let image = tile(WHOLE);
        assert_eq!(image.pixels.len(), 12 * 9);
        let at = |column: usize, row: usize| image.pixels[row * 12 + column];
        assert_eq!(at(8, 4), 0, "the origin is inside");
        assert_eq!(at(4, 4), 0, "so is minus one");
        assert!(at(11, 0) > 0, "0.75 + i is not");
    }

    #[test]
    fn the_picture_is_its_own_mirror() {
        let image = tile(WHOLE);
        let mut rows: Vec<_> = image.pixels.chunks(12).collect();
        rows.reverse();
        assert_eq!(rows.concat(), image.pixels);
    }

    #[test]
    fn a_tile_is_a_part_of_the_whole() {
        let whole = tile(WHOLE);
        let part = tile(Tile { left: -1.0, top: 0.0, width: 4, height: 1, ..WHOLE });
        assert_eq!(part.pixels, whole.pixels[4 * 12 + 4..4 * 12 + 8]);
    }

    #[test]
    fn an_empty_tile_has_no_pixels() {
        assert!(tile(Tile { width: 0, ..WHOLE }).pixels.is_empty());
    }
}
