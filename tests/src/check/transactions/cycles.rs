//! Finds cycles that the promised level forbids: of each group of transactions a shortest, of equals the worst.
//!
//! A component (a set of transactions each of which must come before each other) always holds a cycle; which
//! kinds it holds is asked from the strictest to the loosest; the shortest answer is the easiest to understand.
//! For snapshot isolation a cycle counts only if no two of its anti-dependencies follow each other (Cerone and
//! Gotsman, "Analysing Snapshot Isolation", 2018, on dependency graphs); a flag in the walk, "the last edge was one",
//! decides that exactly.

use std::collections::{HashMap, VecDeque};

use super::Level;
use super::graph::{Edge, Index, Kind, Step, components};

/// Edges from transaction to transaction; the last one leads back to the first.
#[derive(Clone, Debug)]
pub(super) struct Cycle {
    pub(super) edges: Vec<Link>,
}

/// One edge of a cycle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) kind: Kind,
    pub(super) key: usize,
}

/// How many components are looked into.
const COMPONENTS_MAX: usize = 32;
/// Edges that are followed in the search for a shorter cycle of one kind in one component.
const FOLLOWED_MAX: usize = 500_000;

/// A kind of cycle: one edge to start with, and what may follow.
#[derive(Clone, Copy)]
struct Shape {
    first: fn(Kind) -> bool,
    others: fn(Kind) -> bool,
    /// No two anti-dependencies in a row.
    apart: bool,
}

fn overwritten(kind: Kind) -> bool {
    kind == Kind::Overwritten
}

fn read_by(kind: Kind) -> bool {
    kind == Kind::ReadBy
}

fn flow(kind: Kind) -> bool {
    overwritten(kind) || read_by(kind)
}

fn data(kind: Kind) -> bool {
    kind != Kind::RealTime
}

const fn shape(first: fn(Kind) -> bool, others: fn(Kind) -> bool, apart: bool) -> Shape {
    Shape { first, others, apart }
}

const SHAPES: [Shape; 10] = [
    shape(overwritten, overwritten, false),
    shape(read_by, flow, false),
    shape(Kind::is_missed, flow, false),
    shape(Kind::is_missed, data, true),
    shape(Kind::is_missed, data, false),
    shape(
        overwritten,
        |kind| overwritten(kind) || kind == Kind::RealTime,
        false,
    ),
    shape(read_by, |kind| !kind.is_missed(), false),
    shape(Kind::is_missed, |kind| !kind.is_missed(), false),
    shape(Kind::is_missed, |_| true, true),
    shape(Kind::is_missed, |_| true, false),
];

/// A place in a walk: a node, and whether the last edge was an anti-dependency (followed for `apart` only).
type Place = (usize, bool);

/// One cycle for each component that the level forbids.
pub(super) fn find(index: &Index, level: Level) -> Vec<Cycle> {
    let apart = level == Level::Snapshot;
    let found = if apart {
        let next = |place: usize, number: usize| {
            let edge = index.from(place / 2).get(number)?;
            let place = follow((place / 2, place % 2 == 1), *edge, true);
            Some(place.map_or(Step::Skip, |(node, flag)| Step::To(node * 2 + usize::from(flag))))
        };
        components(index.nodes() * 2, next)
    } else {
        components(index.nodes(), |node, number| {
            index.from(node).get(number).map(|edge| Step::To(edge.to))
        })
    };
    found
        .iter()
        .take(COMPONENTS_MAX)
        .filter_map(|component| worst(index, component, apart))
        .collect()
}

/// Where an edge leads.
fn follow((_, flag): Place, edge: Edge, apart: bool) -> Option<Place> {
    match (apart, edge.from_hub, edge.kind.is_missed()) {
        (false, _, _) => Some((edge.to, false)),
        (true, true, _) => Some((edge.to, flag)),
        (true, false, true) if flag => None,
        (true, false, missed) => Some((edge.to, missed)),
    }
}

fn worst(index: &Index, component: &[usize], apart: bool) -> Option<Cycle> {
    let mut nodes: Vec<usize> = component
        .iter()
        .map(|place| if apart { place / 2 } else { *place })
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    let shapes = SHAPES
        .iter()
        .filter(|shape| !apart || shape.apart || !(shape.others)(Kind::Missed));
    // Of cycles of one length the first shape's, which is the worst kind.
    let found = shapes
        .clone()
        .filter_map(|shape| shortest(index, &nodes, *shape, FOLLOWED_MAX));
    // A component holds a cycle: if the work allowed did not reach one, look until it does.
    let unbounded = || {
        shapes
            .clone()
            .find_map(|shape| shortest(index, &nodes, *shape, usize::MAX))
    };
    found.min_by_key(|cycle| cycle.edges.len()).or_else(unbounded)
}

/// A shortest cycle of this shape that stays among `nodes`, as far as the work allowed tells.
fn shortest(index: &Index, nodes: &[usize], shape: Shape, followed_max: usize) -> Option<Cycle> {
    let mut best: Option<Cycle> = None;
    let mut followed = 0;
    for from in nodes.iter().copied().filter(|node| *node < index.transactions) {
        for edge in index.from(from).iter().filter(|edge| (shape.first)(edge.kind)) {
            if nodes.binary_search(&edge.to).is_err() {
                continue;
            }
            let longest = best.as_ref().map(|best| best.edges.len());
            if let Some(cycle) = close(index, nodes, shape, (from, *edge), &mut followed)
                && longest.is_none_or(|longest| cycle.edges.len() < longest)
            {
                best = Some(cycle);
            }
            let is_least = best.as_ref().is_some_and(|best| best.edges.len() == 2);
            if is_least || followed > followed_max {
                return best;
            }
        }
    }
    best
}

/// The shortest way back to where `first` began, as a cycle.
fn close(
    index: &Index,
    nodes: &[usize],
    shape: Shape,
    first: (usize, Edge),
    followed: &mut usize,
) -> Option<Cycle> {
    let (start, edge) = first;
    let begin = follow((start, false), edge, shape.apart)?;
    let mut came_from: HashMap<Place, (Place, Edge)> = HashMap::new();
    let mut waiting = VecDeque::from([begin]);
    while let Some(place) = waiting.pop_front() {
        if place == (start, false) {
            return Some(trace(index, first, begin, &came_from));
        }
        for edge in index.from(place.0) {
            *followed += 1;
            if !edge.from_hub && !(shape.others)(edge.kind) {
                continue;
            }
            let Some(next) = follow(place, *edge, shape.apart) else {
                continue;
            };
            if next != begin && !came_from.contains_key(&next) && nodes.binary_search(&next.0).is_ok() {
                came_from.insert(next, (place, *edge));
                waiting.push_back(next);
            }
        }
    }
    None
}

/// Reads the path backwards and leaves the hubs out.
fn trace(
    index: &Index,
    first: (usize, Edge),
    begin: Place,
    came_from: &HashMap<Place, (Place, Edge)>,
) -> Cycle {
    let (start, edge) = first;
    let mut path = Vec::new();
    let mut place = (start, false);
    while place != begin {
        let (before, edge) = came_from[&place];
        path.push((before.0, edge));
        place = before;
    }
    path.push((start, edge));
    path.reverse();
    let mut edges: Vec<Link> = Vec::new();
    for (from, edge) in path {
        match edges.last_mut() {
            Some(last) if from >= index.transactions => last.to = edge.to,
            _ => edges.push(Link {
                from,
                to: edge.to,
                kind: edge.kind,
                key: edge.key,
            }),
        }
    }
    Cycle { edges }
}
