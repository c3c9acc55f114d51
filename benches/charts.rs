//! Inserts the tables of the other benches' last run into `docs/performance.md` and `docs/scaling.md`, and draws
//! them.
//!
//! ```text
//! cargo bench --bench charts
//! ```

mod support;

use std::error::Error;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use plotters::prelude::*;
use support::measures;
use support::table::Table;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SIZE: (u32, u32) = (760, 420);
const COLOURS: [RGBColor; 4] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(120, 120, 120),
];

fn main() -> Result<()> {
    if !measures() {
        return Ok(()); // `cargo test --benches` makes no tables
    }
    for page in ["performance.md", "scaling.md"] {
        for name in fill(&docs().join(page))? {
            println!("table {name}");
        }
    }
    uncontended()?;
    contended()?;
    waits()?;
    one_message()?;
    keys()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Replaces what is between `<!-- table: NAME -->` and `<!-- end -->`.
fn fill(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let mut parts = text.split("<!-- table: ");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    let mut names = Vec::new();
    for part in parts {
        let (name, rest) = part.split_once(" -->").ok_or("a marker without its end")?;
        let (_, after) = rest
            .split_once("<!-- end -->")
            .ok_or("a table without its end")?;
        let table = Table::text(name);
        filled += &format!("<!-- table: {name} -->\n{table}<!-- end -->{after}");
        names.push(name.to_owned());
    }
    fs::write(path, filled)?;
    Ok(names)
}

/// The number in a cell such as `12.5 µs`.
fn number(cell: &str) -> f64 {
    let number = cell.split(' ').next().unwrap_or_default();
    number
        .parse()
        .unwrap_or_else(|_| panic!("no number: {cell}"))
}

/// How many times as long as pglock's each way takes, on the three networks.
fn uncontended() -> Result<()> {
    let rows = Table::read("postgres");
    let of = |code: &str| {
        let mut rows = rows.iter();
        let row = rows.find(|row| row[0] == "session lock" && row[1] == code);
        let row = row.unwrap_or_else(|| panic!("no row {code}"));
        [4, 6, 8].map(|column| number(&row[column])).to_vec()
    };
    let (bare, usual) = ("bare lock and unlock by hand", "usual code");
    let series = [
        ("pglock", of("pglock")),
        (bare, of(bare)),
        (usual, of(usual)),
    ];
    bars(
        "uncontended",
        "Lock and unlock with postgres: time, as multiples of pglock's",
        &["local socket", "+ 0.5 ms network", "+ 2 ms network"],
        &series,
    )
}

fn contended() -> Result<()> {
    let mut series = Vec::new();
    for pool in ["queued", "plain"] {
        series.push((format!("{pool} pool"), by_threads(pool, "SELECT 1", 4)));
    }
    lines("contended", "One key: locks a second", "threads", &series)
}

fn waits() -> Result<()> {
    let mut series = Vec::new();
    for (column, what) in [(6, "p50"), (7, "p99")] {
        for pool in ["queued", "plain"] {
            series.push((
                format!("{pool} pool, {what}"),
                by_threads(pool, "SELECT 1", column),
            ));
        }
    }
    lines(
        "waits",
        "One key, a statement in the body: µs from asking to having",
        "threads",
        &series,
    )
}

/// How many times as many sections as `with_lock` each way does, with 16 threads on the three networks.
fn one_message() -> Result<()> {
    let rows = Table::read("one_message");
    let of = |way: &'static str| {
        let rows = rows
            .iter()
            .filter(|row| row[0] == "postgres" && row[2] == "16" && row[3] == way);
        (way, rows.map(|row| number(&row[5])).collect())
    };
    let series = [
        "one message",
        "with_lock",
        "SELECT … FOR UPDATE",
        "bare UPDATE",
    ]
    .map(of);
    bars(
        "one_message",
        "16 threads, one row: sections a second, as multiples of with_lock's",
        &["local socket", "+ 0.5 ms network", "+ 2 ms network"],
        &series,
    )
}

fn by_threads(pool: &str, body: &str, column: usize) -> Vec<(f64, f64)> {
    let rows = Table::read("contended").into_iter();
    let rows = rows.filter(|row| row[0] == "1" && row[2] == body && row[3] == pool);
    rows.map(|row| (number(&row[1]), number(&row[column])))
        .collect()
}

fn keys() -> Result<()> {
    let counts = [1.0, 4.0, 16.0, 64.0, 256.0];
    let series: Vec<_> = Table::read("keys")
        .iter()
        .map(|row| {
            let times = row[2..].iter().map(|cell| number(cell));
            (
                format!("{}: {}", row[0], row[1]),
                counts.into_iter().zip(times).collect(),
            )
        })
        .collect();
    lines(
        "keys",
        "Several keys: µs to lock and unlock all",
        "keys",
        &series,
    )
}

/// Lines over two logarithmic axes.
fn lines(name: &str, title: &str, x: &str, series: &[(String, Vec<(f64, f64)>)]) -> Result<()> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let xs = around(points().map(|point| point.0), 1.2);
    let ys = around(points().map(|point| point.1), 2.0);
    let path = docs().join(format!("{name}.svg"));
    let root = SVGBackend::new(&path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(xs.log_scale().base(2.0), ys.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(x)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for (index, (label, points)) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(COLOURS[3])
        .position(SeriesLabelPosition::UpperLeft)
        .draw()?;
    root.present()?;
    println!("{}", path.display());
    Ok(())
}

fn around(values: impl Iterator<Item = f64>, factor: f64) -> Range<f64> {
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    least / factor..most * factor
}

/// Groups of bars.
fn bars(name: &str, title: &str, groups: &[&str], series: &[(&str, Vec<f64>)]) -> Result<()> {
    let most = series
        .iter()
        .flat_map(|(_, values)| values)
        .fold(0.0_f64, |most, v| most.max(*v));
    let path = docs().join(format!("{name}.svg"));
    let root = SVGBackend::new(&path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..groups.len() as f64, 0.0..most * 1.6)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(0)
        .draw()?;
    let width = 0.7 / series.len() as f64;
    for (index, (label, values)) in series.iter().enumerate() {
        let colour = COLOURS[index];
        let bar = |(group, value): (usize, &f64)| {
            let left = group as f64 + 0.15 + width * index as f64;
            Rectangle::new([(left, 0.0), (left + width * 0.9, *value)], colour.filled())
        };
        chart
            .draw_series(values.iter().enumerate().map(bar))?
            .label(*label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    let labels = groups.iter().enumerate().map(|(group, label)| {
        let place = (group as f64 + 0.2, most * 1.1);
        Text::new((*label).to_owned(), place, ("sans-serif", 15))
    });
    chart.draw_series(labels)?;
    chart
        .configure_series_labels()
        .border_style(COLOURS[3])
        .background_style(WHITE)
        .position(SeriesLabelPosition::UpperRight)
        .draw()?;
    root.present()?;
    println!("{}", path.display());
    Ok(())
}
