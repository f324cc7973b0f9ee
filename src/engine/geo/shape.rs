//! Areas that are searched, and distances on a sphere.

use super::cell::{Cell, Move, Point, STEP_MAX};
use crate::engine::Refusal;

/// The quadratic mean radius of the Earth (WGS-84).
const EARTH_RADIUS: f64 = 6_372_797.560_856;
/// Half the side of the Mercator projection's square, in metres.
const MERCATOR_MAX: f64 = 20_037_726.37;
const RADIANS_OF_DEGREE: f64 = std::f64::consts::PI / 180.0;

/// A unit of length, by the metres it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit(pub f64);

impl Unit {
    pub const METRE: Self = Self(1.0);

    /// The unit that the word `text` names.
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let units = [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)];
        let found = units
            .iter()
            .find(|(word, _)| crate::command::args::is_word(text, word));
        found.map(|(_, metres)| Self(*metres)).ok_or(Refusal::Other(
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        ))
    }
}

/// The form of an area, in its own unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
}

/// An area around a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub centre: Point,
    pub form: Form,
    pub unit: Unit,
}

impl Shape {
    /// The distance in metres of a place in the area from its centre.
    pub fn distance_inside(&self, place: Point) -> Option<f64> {
        let (centre, unit) = (self.centre, self.unit.0);
        match self.form {
            Form::Circle { radius } => {
                let found = distance(centre, place);
                (found <= radius * unit).then_some(found)
            }
            Form::Box { width, height } => {
                let beside = Point {
                    latitude: place.latitude,
                    ..centre
                };
                let above = Point {
                    longitude: place.longitude,
                    ..centre
                };
                let is_inside = distance(place, above) <= height * unit / 2.0
                    && distance(place, beside) <= width * unit / 2.0;
                is_inside.then(|| distance(centre, place))
            }
        }
    }

    /// The cells that cover the area, in the order in which Redis looks through
    /// them: it answers in this order unless it is told to sort.
    pub fn cells(&self) -> Vec<Cell> {
        let bounds = self.bounds();
        let mut step = self.step();
        if step > 1 && self.is_beyond_neighbours(&bounds, step) {
            step -= 1;
        }
        let centre = Cell::of(self.centre, step);
        let area = centre.area();
        let mut cells: Vec<Cell> = vec![centre];
        for (eastward, northward) in NEIGHBOURS {
            // Where the area does not reach over the centre's own cell.
            let is_needless = step >= 2
                && (northward == Move::Down && area.latitudes.start < bounds.south
                    || northward == Move::Up && area.latitudes.end > bounds.north
                    || eastward == Move::Down && area.longitudes.start < bounds.west
                    || eastward == Move::Up && area.longitudes.end > bounds.east);
            let cell = centre.neighbour(eastward, northward);
            // With very large cells, neighbours on both sides are the same one.
            let is_repeated = cells.len() > 1 && cells.last() == Some(&cell);
            if !is_needless && !is_repeated {
                cells.push(cell);
            }
        }
        cells
    }

    /// The step whose cells are about as large as the area.
    fn step(&self) -> u32 {
        let mut reach = match self.form {
            Form::Circle { radius } => radius,
            Form::Box { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        } * self.unit.0;
        if reach == 0.0 {
            return STEP_MAX;
        }
        let mut step = 1i32;
        while reach < MERCATOR_MAX {
            reach *= 2.0;
            step += 1;
        }
        step -= 2;
        // Towards the poles cells are narrower.
        let latitude = self.centre.latitude.abs();
        step -= i32::from(latitude > 66.0) + i32::from(latitude > 80.0);
        step.clamp(1, STEP_MAX as i32).unsigned_abs()
    }

    fn is_beyond_neighbours(&self, bounds: &Bounds, step: u32) -> bool {
        let centre = Cell::of(self.centre, step);
        let area = |eastward, northward| centre.neighbour(eastward, northward).area();
        area(Move::Stay, Move::Up).latitudes.end < bounds.north
            || area(Move::Stay, Move::Down).latitudes.start > bounds.south
            || area(Move::Up, Move::Stay).longitudes.end < bounds.east
            || area(Move::Down, Move::Stay).longitudes.start > bounds.west
    }

    fn bounds(&self) -> Bounds {
        let (width, height) = match self.form {
            Form::Circle { radius } => (radius, radius),
            Form::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let (width, height) = (self.unit.0 * width, self.unit.0 * height);
        let Point {
            longitude,
            latitude,
        } = self.centre;
        let degrees = |radians: f64| radians / RADIANS_OF_DEGREE;
        let up = degrees(height / EARTH_RADIUS);
        // The side that is nearer to a pole is the wider one in degrees.
        let edge = if latitude < 0.0 {
            latitude - up
        } else {
            latitude + up
        };
        let aside = degrees(width / EARTH_RADIUS / (edge * RADIANS_OF_DEGREE).cos());
        Bounds {
            west: longitude - aside,
            east: longitude + aside,
            south: latitude - up,
            north: latitude + up,
        }
    }
}

/// Where an area ends, in degrees.
struct Bounds {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

/// North, south, east, west, and the corners in between.
const NEIGHBOURS: [(Move, Move); 8] = [
    (Move::Stay, Move::Up),
    (Move::Stay, Move::Down),
    (Move::Up, Move::Stay),
    (Move::Down, Move::Stay),
    (Move::Up, Move::Up),
    (Move::Down, Move::Up),
    (Move::Up, Move::Down),
    (Move::Down, Move::Down),
];

/// The way over the sphere between two places, in metres, by the haversine formula.
pub(super) fn distance(one: Point, other: Point) -> f64 {
    let radians = |degrees: f64| degrees * RADIANS_OF_DEGREE;
    let (latitude, other_latitude) = (radians(one.latitude), radians(other.latitude));
    let east = ((radians(other.longitude) - radians(one.longitude)) / 2.0).sin();
    if east == 0.0 {
        return EARTH_RADIUS * (other_latitude - latitude).abs();
    }
    let north = ((other_latitude - latitude) / 2.0).sin();
    let haversine = north * north + latitude.cos() * other_latitude.cos() * east * east;
    2.0 * EARTH_RADIUS * haversine.sqrt().asin()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PALERMO: Point = Point {
        longitude: 13.361_389,
        latitude: 38.115_556,
    };
    const CATANIA: Point = Point {
        longitude: 15.087_269,
        latitude: 37.502_669,
    };

    #[test]
    fn distances_are_those_of_redis() {
        assert!((distance(PALERMO, CATANIA) - 166_274.15).abs() < 1.0);
        assert_eq!(distance(PALERMO, PALERMO), 0.0);
    }

    #[test]
    fn an_area_is_covered_by_its_cells() {
        for (radius, far) in [(0.0, false), (1.0, false), (170.0, true), (20_000.0, true)] {
            let shape = Shape {
                centre: PALERMO,
                form: Form::Circle { radius },
                unit: Unit(1000.0),
            };
            let covers = |place| {
                let score = Cell::of(place, STEP_MAX).score() as f64;
                shape
                    .cells()
                    .iter()
                    .any(|cell| cell.scores().contains(&score))
            };
            assert!(covers(PALERMO), "{radius}");
            assert_eq!(shape.distance_inside(CATANIA).is_some(), far);
            assert!(!far || covers(CATANIA), "{radius}");
        }
    }

    #[test]
    fn units_are_words() {
        assert_eq!(Unit::parse(b"Km"), Ok(Unit(1000.0)));
        assert!(Unit::parse(b"yard").is_err());
    }
}
