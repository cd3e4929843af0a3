//! The chart of stages: for each kind of request a bar of the medians of its stages, one upon the other.
//!
//! Medians do not add up to the median of the whole, but nearly so where the stages are steady; the mean of the whole
//! would be that of its outliers.

use plotters::prelude::*;

use super::{Area, Axes, BLUE, Drawn, GREEN, GREY, Line, ORANGE, RED, builder, grouped, legend};
use crate::report::StageRow;
use crate::stages::Stage;
use crate::statistics::Measure;

/// Half of a bar, in bars with their gaps.
const HALF_WIDTH: f64 = 0.28;

/// The stages that add up, from the bottom of a bar to its top.
const STACK: [(Stage, RGBColor); 5] = [
    (Stage::Queue, ORANGE),
    (Stage::Hop, RED),
    (Stage::Log, BLUE),
    (Stage::Apply, GREEN),
    (Stage::NetworkAndClient, GREY),
];

/// One part of a bar: its kind's place, and from where to where it reaches in µs.
#[derive(Debug, PartialEq)]
struct Part {
    place: usize,
    from: f64,
    to: f64,
}

/// Draws all that there are.
pub(super) fn draw(area: &Area<'_>, rows: &[StageRow]) -> Drawn {
    let kinds = kinds(rows);
    let parts: Vec<(RGBColor, Vec<Part>)> = stacked(rows, &kinds);
    let tops = parts.iter().flat_map(|(_, parts)| parts).map(|part| part.to);
    let top = tops.fold(1.0, f64::max) * 1.08;
    let axes = Axes {
        title: "Medians of the stages",
        x_title: "",
        y_title: "µs",
        x_range: (0.0, kinds.len() as f64),
        x_ticks: (0..kinds.len()).map(|place| place as f64 + 0.5).collect(),
    };
    let mut chart = builder(area, &axes).build_cartesian_2d(axes.x_axis(), 0.0..top)?;
    let name = |place: &f64| {
        kinds
            .get(*place as usize)
            .map_or("", |kind| kind.name())
            .to_owned()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_desc(axes.y_title)
        .y_label_formatter(&|value| grouped(*value))
        .x_label_formatter(&name)
        .light_line_style(WHITE)
        .draw()?;
    for (color, parts) in &parts {
        let bars = parts.iter().map(|part| {
            let middle = part.place as f64 + 0.5;
            let corners = [(middle - HALF_WIDTH, part.from), (middle + HALF_WIDTH, part.to)];
            Rectangle::new(corners, color.filled())
        });
        chart.draw_series(bars)?;
    }
    let lines: Vec<Line> = { STACK.iter() }
        .map(|(stage, color)| Line {
            name: stage.name(),
            color: *color,
            points: Vec::new(),
        })
        .collect();
    legend(area, &lines)
}

/// The kinds of requests, in the order of the table.
fn kinds(rows: &[StageRow]) -> Vec<Measure> {
    let mut kinds: Vec<Measure> = rows.iter().map(|row| row.operation).collect();
    kinds.dedup();
    kinds
}

fn stacked(rows: &[StageRow], kinds: &[Measure]) -> Vec<(RGBColor, Vec<Part>)> {
    let mut heights = vec![0.0; kinds.len()];
    let mut stacked = Vec::with_capacity(STACK.len());
    for (stage, color) in STACK {
        let mut parts = Vec::with_capacity(kinds.len());
        for (place, (kind, height)) in kinds.iter().zip(&mut heights).enumerate() {
            let of_this = |row: &&StageRow| row.operation == *kind && row.stage == stage;
            let median = rows.iter().find(of_this).map_or(0.0, |row| row.latency.p50_us);
            let from = *height;
            *height += median;
            parts.push(Part {
                place,
                from,
                to: *height,
            });
        }
        stacked.push((color, parts));
    }
    stacked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Latency;

    fn row(operation: Measure, stage: Stage, p50_us: f64) -> StageRow {
        let latency = Latency {
            p50_us,
            ..Latency::default()
        };
        StageRow {
            operation,
            stage,
            latency,
        }
    }

    #[test]
    fn each_stage_begins_where_the_one_before_ends() {
        let rows = [
            row(Measure::Read, Stage::Queue, 10.0),
            row(Measure::Read, Stage::Server, 99.0),
            row(Measure::Update, Stage::Queue, 5.0),
            row(Measure::Update, Stage::Log, 40.0),
            row(Measure::Update, Stage::NetworkAndClient, 20.0),
        ];
        let kinds = kinds(&rows);
        assert_eq!(kinds, [Measure::Read, Measure::Update]);
        let stacked = stacked(&rows, &kinds);
        let updates: Vec<(f64, f64)> = stacked
            .iter()
            .map(|(_, parts)| (parts[1].from, parts[1].to))
            .map(|(from, to)| (from.round(), to.round()))
            .collect();
        assert_eq!(
            updates,
            [(0.0, 5.0), (5.0, 5.0), (5.0, 45.0), (45.0, 45.0), (45.0, 65.0)]
        );
        assert_eq!((stacked[0].1[0].from, stacked[4].1[0].to), (0.0, 10.0));
    }
}
