//! The picture of a phase, as one SVG: throughput over time, latency percentiles over time, the latency
//! distribution, where the time of requests went if they asked, and for a search the latency at each rate.
//!
//! Latencies have logarithmic axes. The distribution's axis of percentiles is stretched so that each nine
//! takes as much room as the one before it.

mod stages;

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use crate::report::{Offered, PhaseReport, shown_us};
use crate::search::SearchReport;
use crate::series::SecondRow;

const WIDTH_PIXELS: u32 = 1000;
const CHART_HEIGHT_PIXELS: u32 = 330;
const TITLE_HEIGHT_PIXELS: u32 = 60;
const FONT: &str = "sans-serif";
/// A last second that lasted less is left out: its few operations say nothing.
const LAST_SECOND_MIN: f64 = 0.5;

/// Of the middle of the legend, in the title's row of a chart.
const LEGEND_Y: i32 = 12;
/// Points of a line that still get a dot each.
const DOTS_MAX: usize = 40;

// Told apart by people who see few colours (Okabe and Ito).
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const RED: RGBColor = RGBColor(213, 94, 0);
const GREY: RGBColor = RGBColor(120, 120, 120);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// Draws a line, with a dot at each point if they are few.
macro_rules! series {
    ($chart:expr, $line:expr) => {{
        let color = $line.color;
        let points = $line.points.iter().copied();
        $chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
        if $line.points.len() <= DOTS_MAX {
            let dots = $line
                .points
                .iter()
                .map(|point| Circle::new(*point, 2, color.filled()));
            $chart.draw_series(dots)?;
        }
    }};
}

/// One line of a chart.
struct Line {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// What goes around the lines.
struct Axes<'a> {
    title: &'a str,
    x_title: &'a str,
    y_title: &'a str,
    x_range: (f64, f64),
    /// Where the x axis has a line and a label.
    x_ticks: Vec<f64>,
}

/// An axis that runs evenly from one end to the other, with lines and labels where it is told.
struct Ticked {
    range: (f64, f64),
    ticks: Vec<f64>,
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (left, right): (i32, i32)) -> i32 {
        let (from, to) = self.range;
        left + (f64::from(right - left) * (value - from) / (to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

impl Axes<'_> {
    fn x_axis(&self) -> Ticked {
        Ticked {
            range: self.x_range,
            ticks: self.x_ticks.clone(),
        }
    }
}

/// Draws a phase; `offered` is what was asked of an open loop, `heading` stands above all.
///
/// # Errors
/// A sentence, when the file can't be written.
pub fn draw(
    path: &Path,
    heading: &str,
    report: &PhaseReport,
    offered: Option<Offered>,
    search: Option<&SearchReport>,
) -> Result<(), String> {
    let svg = svg(heading, report, offered, search);
    let written = svg.and_then(|svg| Ok(std::fs::write(path, svg)?));
    written.map_err(|error| format!("could not draw the plot {}: {error}", path.display()))
}

fn svg(
    heading: &str,
    report: &PhaseReport,
    offered: Option<Offered>,
    search: Option<&SearchReport>,
) -> Result<String, Box<dyn Error>> {
    let has_stages = !report.stages.is_empty();
    let charts = 3 + u32::from(has_stages) + u32::from(search.is_some());
    let height = TITLE_HEIGHT_PIXELS + charts * CHART_HEIGHT_PIXELS;
    let mut text = String::new();
    {
        let whole = SVGBackend::with_string(&mut text, (WIDTH_PIXELS, height)).into_drawing_area();
        whole.fill(&WHITE)?;
        let (top, rest) = whole.split_vertically(TITLE_HEIGHT_PIXELS);
        title(&top, heading, report)?;
        let areas = rest.split_evenly((charts as usize, 1));
        let rows: Vec<&SecondRow> = { report.series.iter() }
            .filter(|row| row.lasted_seconds >= LAST_SECOND_MIN)
            .collect();
        throughput(&areas[0], &rows, offered)?;
        percentiles(&areas[1], &rows)?;
        distribution(&areas[2], report)?;
        if has_stages {
            stages::draw(&areas[3], &report.stages)?;
        }
        if let (Some(search), Some(area)) = (search, areas.last()) {
            rates(area, search)?;
        }
        whole.present()?;
    }
    Ok(text)
}

fn title(area: &Area<'_>, heading: &str, report: &PhaseReport) -> Drawn {
    let figures = format!(
        "{} operations in {:.2} s, {} operations/s; p50 {}, p99 {}, p99.9 {}, max {}",
        grouped(report.operations as f64),
        report.seconds,
        grouped(report.operations_per_second),
        shown_us(report.latency.p50_us),
        shown_us(report.latency.p99_us),
        shown_us(report.latency.p999_us),
        shown_us(report.latency.max_us)
    );
    let small = (FONT, 13).into_font().color(&BLACK);
    area.draw(&Text::new(heading.to_owned(), (20, 14), small.clone()))?;
    area.draw(&Text::new(figures, (20, 36), small))?;
    Ok(())
}

/// From the first to the last second, and one second at least.
fn time_range(rows: &[&SecondRow]) -> (f64, f64) {
    let first = rows.first().map_or(0.0, |row| row.second as f64);
    let last = rows
        .last()
        .map_or(0.0, |row| row.second as f64 + row.lasted_seconds);
    (first, last.max(first + 1.0))
}

/// Round numbers over a range, a dozen at most, none of them a fraction.
fn ticks((from, to): (f64, f64)) -> Vec<f64> {
    let mut step = 1.0;
    while (to - from) / step > 12.0 {
        // 1, 2, 5, 10, 20, …
        let digits = step / 10_f64.powf(f64::log10(step).floor());
        step *= if digits.round() as u32 == 2 { 2.5 } else { 2.0 };
    }
    let first = (from / step).ceil();
    let count = ((to / step).floor() - first) as usize + 1;
    (0..count).map(|index| (first + index as f64) * step).collect()
}

fn throughput(area: &Area<'_>, rows: &[&SecondRow], offered: Option<Offered>) -> Drawn {
    let middle = |row: &SecondRow| row.second as f64 + row.lasted_seconds / 2.0;
    let per_second = |count: u64, row: &SecondRow| (middle(row), count as f64 / row.lasted_seconds);
    let mut lines = vec![Line {
        name: "done",
        color: BLUE,
        points: rows.iter().map(|row| per_second(row.operations, row)).collect(),
    }];
    if let Some(Offered { rate, seconds }) = offered {
        // The warm-up is at the first rate, and nothing is due after the end.
        let end = seconds.unwrap_or(f64::INFINITY);
        let due = |seconds: f64| rate.due_within(seconds.min(end)) + rate.from_per_second * seconds.min(0.0);
        let points = rows.iter().map(|row| {
            let from = row.second as f64;
            let to = from + row.lasted_seconds;
            (middle(row), (due(to) - due(from)) / row.lasted_seconds)
        });
        lines.push(Line {
            name: "offered",
            color: GREY,
            points: points.collect(),
        });
    }
    if rows.iter().any(|row| row.errors > 0) {
        lines.push(Line {
            name: "errors",
            color: RED,
            points: rows.iter().map(|row| per_second(row.errors, row)).collect(),
        });
    }
    let axes = Axes {
        title: "Throughput",
        x_title: "seconds after the warm-up",
        y_title: "operations/s",
        x_range: time_range(rows),
        x_ticks: ticks(time_range(rows)),
    };
    linear_chart(area, &axes, &lines)
}

fn percentiles(area: &Area<'_>, rows: &[&SecondRow]) -> Drawn {
    let line = |name, color, of: fn(&SecondRow) -> f64| {
        let points = rows.iter().filter(|row| row.operations > 0);
        let point = |row: &&SecondRow| (row.second as f64 + row.lasted_seconds / 2.0, of(row) / 1000.0);
        Line {
            name,
            color,
            points: points.map(point).collect(),
        }
    };
    let lines = [
        line("max", GREY, |row| row.max_us),
        line("p99.9", RED, |row| row.p999_us),
        line("p99", ORANGE, |row| row.p99_us),
        line("p50", BLUE, |row| row.p50_us),
    ];
    let axes = Axes {
        title: "Latency of whole operations, by the second of the answer",
        x_title: "seconds after the warm-up",
        y_title: "ms",
        x_range: time_range(rows),
        x_ticks: ticks(time_range(rows)),
    };
    logarithmic_chart(area, &axes, &lines, |seconds| format!("{seconds:.0}"))
}

/// Where a percentile lies on its axis: 0 for 0 %, 1 for 90 %, 2 for 99 %.
fn nines(part: f64) -> f64 {
    -(1.0 - part).log10()
}

fn distribution_line(name: &'static str, color: RGBColor, latencies_ns: &Histogram<u64>) -> Line {
    // The last sample stands where a percentile would need one more sample.
    let end = nines(1.0 - 1.0 / (latencies_ns.len() as f64 + 1.0));
    let steps = latencies_ns.iter_quantiles(10);
    let points = steps.map(|step| {
        let at = nines(step.quantile_iterated_to().min(1.0 - 1e-12)).min(end);
        (at, step.value_iterated_to() as f64 / 1e6)
    });
    Line {
        name,
        color,
        points: points.collect(),
    }
}

fn distribution(area: &Area<'_>, report: &PhaseReport) -> Drawn {
    let statistics = &report.statistics;
    let mut lines = vec![distribution_line(
        "from the due moment",
        BLUE,
        statistics.operations_ns(),
    )];
    if report.open_loop.is_some() {
        let service = distribution_line("from handing over", GREEN, statistics.service_ns());
        lines.push(service);
    } else {
        lines[0].name = "whole operation";
    }
    let end = nines(1.0 - 1.0 / (report.latency.count as f64 + 1.0)).max(1.0);
    let axes = Axes {
        title: "Latency distribution",
        x_title: "percentile",
        y_title: "ms",
        x_range: (0.0, end * 1.02),
        x_ticks: (0..=end.round() as u32).map(f64::from).collect(),
    };
    let label = |at: &f64| {
        let part = 100.0 * (1.0 - 10_f64.powf(-at));
        let digits = (at.round() as usize).saturating_sub(2);
        format!("{part:.digits$} %")
    };
    logarithmic_chart(area, &axes, &lines, label)
}

fn rates(area: &Area<'_>, search: &SearchReport) -> Drawn {
    let mut steps: Vec<_> = search.steps.iter().filter(|step| step.p50_us > 0.0).collect();
    steps.sort_by(|one, other| one.offered_per_second.total_cmp(&other.offered_per_second));
    let line = |name, color, of: fn(&crate::search::StepRow) -> f64| Line {
        name,
        color,
        points: steps
            .iter()
            .map(|step| (step.offered_per_second, of(step) / 1000.0))
            .collect(),
    };
    let lines = [
        line("p99.9", RED, |step| step.p999_us),
        line("p99", ORANGE, |step| step.p99_us),
        line("p50", BLUE, |step| step.p50_us),
    ];
    let last = steps.last().map_or(1.0, |step| step.offered_per_second);
    let title = match search.found_per_second {
        Some(rate) => format!("Latency at each rate of the search; {rate:.0} operations/s keep the goals"),
        None => "Latency at each rate of the search; none keeps the goals".to_owned(),
    };
    let axes = Axes {
        title: &title,
        x_title: "operations due per second",
        y_title: "ms",
        x_range: (0.0, last * 1.02),
        x_ticks: ticks((0.0, last * 1.02)),
    };
    logarithmic_chart(area, &axes, &lines, |rate| grouped(*rate))
}

/// A number with a space between thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds with as many digits as they need.
fn milliseconds(value: f64) -> String {
    if value >= 1.0 {
        return grouped(value);
    }
    let digits = -value.log10().floor() as usize;
    format!("{value:.digits$}")
}

/// Names the lines at the right of the title, from the right to the left, where no line can run through it.
fn legend(area: &Area<'_>, lines: &[Line]) -> Drawn {
    let mut right = WIDTH_PIXELS as i32 - 30;
    for line in lines.iter().rev() {
        let text = (FONT, 12).into_font();
        let (text_width, _) = text.box_size(line.name).map_err(|error| error.to_string())?;
        right -= text_width as i32 + 6;
        area.draw(&Text::new(line.name, (right, LEGEND_Y - 6), text.color(&BLACK)))?;
        let stroke = vec![(right - 24, LEGEND_Y), (right - 6, LEGEND_Y)];
        area.draw(&PathElement::new(stroke, line.color.stroke_width(2)))?;
        right -= 40;
    }
    Ok(())
}

fn linear_chart(area: &Area<'_>, axes: &Axes<'_>, lines: &[Line]) -> Drawn {
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
    let top = values.fold(1.0, f64::max) * 1.08;
    let mut chart = builder(area, axes).build_cartesian_2d(axes.x_axis(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc(axes.x_title)
        .y_desc(axes.y_title)
        .y_label_formatter(&|value| grouped(*value))
        .x_label_formatter(&|seconds| format!("{seconds:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for line in lines {
        series!(chart, line);
    }
    legend(area, lines)
}

fn logarithmic_chart(
    area: &Area<'_>,
    axes: &Axes<'_>,
    lines: &[Line],
    x_label: impl Fn(&f64) -> String,
) -> Drawn {
    let values = lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    let (low, high) = if low > high {
        (0.1, 1.0)
    } else {
        (low.max(1e-6), high.max(1e-6))
    };
    // Whole powers of ten at both ends, so that there are lines to read values from.
    let (bottom, top) = (
        10_f64.powf((low * 0.98).log10().floor()),
        10_f64.powf((high * 1.02).log10().ceil()),
    );
    let mut chart = builder(area, axes).build_cartesian_2d(axes.x_axis(), (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axes.x_title)
        .y_desc(axes.y_title)
        .y_label_formatter(&|value| milliseconds(*value))
        .x_label_formatter(&x_label)
        .light_line_style(WHITE)
        .draw()?;
    for line in lines {
        series!(chart, line);
    }
    legend(area, lines)
}

fn builder<'a, 'b>(area: &'a Area<'b>, axes: &Axes<'_>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(axes.title, (FONT, 16))
        .margin_left(10)
        .margin_right(30)
        .margin_bottom(14)
        .x_label_area_size(42)
        .y_label_area_size(72);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrival::Rate;
    use crate::cli::Phase;
    use crate::driver::PhaseOutcome;
    use std::time::Duration;

    fn row(second: i64, operations: u64) -> SecondRow {
        SecondRow {
            second,
            lasted_seconds: 1.0,
            operations,
            errors: 0,
            mean_us: 150.0,
            p50_us: 100.0,
            p99_us: 500.0,
            p999_us: 900.0,
            max_us: 2000.0,
        }
    }

    fn report(series: Vec<SecondRow>) -> PhaseReport {
        let mut outcome = PhaseOutcome {
            elapsed: Duration::from_secs(3),
            series,
            ..PhaseOutcome::default()
        };
        for latency_us in 1..1000 {
            outcome.statistics.record_operation(latency_us * 1000);
            outcome
                .statistics
                .record_service(latency_us * 500, latency_us * 500);
        }
        PhaseReport::new(Phase::Run, outcome, Some(offered()))
    }

    fn offered() -> Offered {
        Offered {
            rate: Rate::fixed(300.0),
            seconds: Some(3.0),
        }
    }

    #[test]
    fn a_picture_has_its_charts_and_lines() {
        let report = report(vec![row(-1, 300), row(0, 310), row(1, 0), row(2, 305)]);
        let svg = svg("YCSB-A <here>", &report, Some(offered()), None).unwrap();
        for text in [
            "YCSB-A &lt;here&gt;",
            "Throughput",
            "offered",
            "p99.9",
            "Latency distribution",
            "99.9 %",
            "from handing over",
        ] {
            assert!(svg.contains(text), "no {text:?} in the picture");
        }
        // Two lines of throughput, four percentiles, two distributions.
        let lines = svg.matches("stroke-width=\"2\" points=").count();
        assert!(lines >= 8, "{lines} lines");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_search_and_an_empty_phase_are_drawn_too() {
        let mut search = SearchReport::default();
        let empty = PhaseReport::new(Phase::Run, PhaseOutcome::default(), None);
        assert!(
            svg("nothing", &empty, None, Some(&search))
                .unwrap()
                .contains("none keeps the goals")
        );
        search.found_per_second = Some(64_000.0);
        let svg = svg("one second", &report(vec![row(0, 5)]), None, Some(&search)).unwrap();
        assert!(svg.contains("64000 operations/s keep the goals") && !svg.contains("NaN"));
    }

    #[test]
    fn labels_are_readable() {
        assert_eq!(grouped(1_234_567.0), "1 234 567");
        assert_eq!(grouped(12.0), "12");
        assert_eq!(
            [milliseconds(0.01), milliseconds(0.1), milliseconds(100.0)],
            ["0.01", "0.1", "100"]
        );
        assert!((nines(0.999) - 3.0).abs() < 1e-9);
        assert_eq!(ticks((-1.0, 3.0)), [-1.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(
            ticks((0.0, 47.5)),
            [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0]
        );
        assert_eq!(ticks((0.0, 65_000.0)).len(), 7);
    }

    #[test]
    fn a_plot_that_cannot_be_written_is_a_sentence() {
        let path = Path::new("/no/such/place/out.svg");
        let error = draw(path, "x", &report(Vec::new()), None, None).unwrap_err();
        assert!(
            error.contains("could not draw the plot /no/such/place/out.svg"),
            "{error}"
        );
    }
}
