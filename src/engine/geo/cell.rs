//! Cells of the grid that places are sorted by: the geohash, with as many bits
//! as a score holds (<https://en.wikipedia.org/wiki/Geohash>).
//!
//! A cell of step `n` is one of 2^n parts of the longitudes and one of 2^n parts of the
//! latitudes, whose bits alternate.

use std::ops::Range;

/// A place, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub longitude: f64,
    pub latitude: f64,
}

/// The step of the cells that scores name.
pub(super) const STEP_MAX: u32 = 26;
/// East and west of it there is nothing.
pub(super) const LONGITUDE_MAX: f64 = 180.0;
/// The grid ends before the poles, where the Mercator projection is a square (EPSG:3857).
pub(super) const LATITUDE_MAX: f64 = 85.051_128_78;

/// The even bits: those of the latitude.
const LATITUDES: u64 = 0x5555_5555_5555_5555;
/// The odd bits: those of the longitude.
const LONGITUDES: u64 = 0xAAAA_AAAA_AAAA_AAAA;

/// A cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub bits: u64,
    pub step: u32,
}

/// What a cell covers, in degrees.
#[derive(Clone, Debug)]
pub(super) struct Area {
    pub longitudes: Range<f64>,
    pub latitudes: Range<f64>,
}

/// A way to a neighbour, along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Down,
    Stay,
    Up,
}

impl Cell {
    /// The cell of a place.
    pub fn of(point: Point, step: u32) -> Self {
        Self::on_grid(point, step, LATITUDE_MAX)
    }

    /// The cell of the common geohash, whose latitudes go up to the poles.
    pub fn of_standard(point: Point) -> Self {
        Self::on_grid(point, STEP_MAX, 90.0)
    }

    fn on_grid(point: Point, step: u32, latitude_max: f64) -> Self {
        let part = |degrees: f64, max: f64| {
            let share = (degrees + max) / (max - -max);
            (share * (1u64 << step) as f64) as u32
        };
        let latitude = part(point.latitude, latitude_max);
        let longitude = part(point.longitude, LONGITUDE_MAX);
        Self {
            bits: spread(latitude) | spread(longitude) << 1,
            step,
        }
    }

    /// The cell that a score names; any score names one, as in Redis on x86-64.
    pub fn of_score(score: f64) -> Self {
        Self {
            bits: truncated(score),
            step: STEP_MAX,
        }
    }

    /// The score of a place, and the scores of all places in a larger cell begin with it.
    pub fn score(self) -> u64 {
        self.bits << (2 * (STEP_MAX - self.step))
    }

    /// The scores of the places in it.
    pub fn scores(self) -> Range<f64> {
        let next = Self {
            bits: self.bits.wrapping_add(1),
            ..self
        };
        self.score() as f64..next.score() as f64
    }

    /// What it covers.
    pub fn area(self) -> Area {
        let side = |part: u32, max: f64| {
            let parts = (1u64 << self.step) as f64;
            let edge = |part: u32| -max + (f64::from(part) / parts) * (max - -max);
            edge(part)..edge(part.wrapping_add(1))
        };
        Area {
            longitudes: side(gathered(self.bits >> 1), LONGITUDE_MAX),
            latitudes: side(gathered(self.bits), LATITUDE_MAX),
        }
    }

    /// Its middle.
    pub fn middle(self) -> Point {
        let Area {
            longitudes,
            latitudes,
        } = self.area();
        let middle = |side: Range<f64>, max: f64| ((side.start + side.end) / 2.0).clamp(-max, max);
        Point {
            longitude: middle(longitudes, LONGITUDE_MAX),
            latitude: middle(latitudes, LATITUDE_MAX),
        }
    }

    /// The next cell to the east or west, and north or south; the grid is closed
    /// to a ring at its ends.
    pub fn neighbour(self, eastward: Move, northward: Move) -> Self {
        let longitude = self.moved(LONGITUDES, eastward);
        let latitude = self.moved(LATITUDES, northward);
        Self {
            bits: longitude | latitude,
            ..self
        }
    }

    /// The bits of one axis, after a move along it.
    fn moved(self, axis: u64, way: Move) -> u64 {
        let unused = 64 - 2 * self.step;
        let other_axis = !axis >> unused;
        let bits = self.bits & axis;
        let moved = match way {
            Move::Stay => return bits,
            // Ones in between hand the carry on.
            Move::Up => bits.wrapping_add(other_axis + 1),
            Move::Down => (bits | other_axis).wrapping_sub(other_axis + 1),
        };
        moved & (axis >> unused)
    }
}

/// The bits of `part` at the even places.
fn spread(part: u32) -> u64 {
    let mut bits = u64::from(part);
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, LATITUDES),
    ] {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// The bits at the even places, side by side.
fn gathered(bits: u64) -> u32 {
    let mut bits = bits & LATITUDES;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0F0F_0F0F_0F0F_0F0F),
        (4, 0x00FF_00FF_00FF_00FF),
        (8, 0x0000_FFFF_0000_FFFF),
        (16, 0x0000_0000_FFFF_FFFF),
    ] {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

/// `score` as an unsigned integer, as processors of x86-64 convert it: negative
/// ones wrap around, and what is beyond 64 bits is told by one pattern.
fn truncated(score: f64) -> u64 {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    let signed = |number: f64| {
        if (-TWO_TO_63..TWO_TO_63).contains(&number) {
            number as i64
        } else {
            i64::MIN
        }
    };
    if score < TWO_TO_63 {
        signed(score) as u64
    } else {
        (signed(score - TWO_TO_63) as u64) ^ (1 << 63)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_the_scores_of_redis() {
        let palermo = Point {
            longitude: 13.361_389,
            latitude: 38.115_556,
        };
        let cell = Cell::of(palermo, STEP_MAX);
        assert_eq!(cell.score(), 3_479_099_956_230_698);
        let middle = Cell::of_score(cell.score() as f64).middle();
        assert!((middle.longitude - palermo.longitude).abs() < 1e-5);
        assert!((middle.latitude - palermo.latitude).abs() < 1e-5);
    }

    #[test]
    fn neighbours_are_side_by_side() {
        let cell = Cell {
            bits: 0b0110,
            step: 2,
        };
        let east = cell.neighbour(Move::Up, Move::Stay);
        assert_eq!(east.area().longitudes.start, cell.area().longitudes.end);
        assert_eq!(east.area().latitudes, cell.area().latitudes);
        let back = east
            .neighbour(Move::Down, Move::Up)
            .neighbour(Move::Stay, Move::Down);
        assert_eq!(back, cell);
        // All the way around.
        let mut around = cell;
        for _ in 0..4 {
            around = around.neighbour(Move::Up, Move::Down);
        }
        assert_eq!(around, cell);
    }

    #[test]
    fn any_score_is_a_cell() {
        assert_eq!(truncated(-5.0), u64::MAX - 4);
        assert_eq!(truncated(1e300), 0);
        assert_eq!(truncated(f64::INFINITY), 0);
        assert_eq!(truncated(f64::NEG_INFINITY), 1 << 63);
        assert_eq!(truncated(1e19), 10_000_000_000_000_000_000);
    }
}
