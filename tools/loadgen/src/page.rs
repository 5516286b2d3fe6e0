//! The report as a page with curves.
//!
//! Knows no connection. The invariant: the page stands alone, it loads nothing.

use std::fmt::Write as _;

use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, LineSeries, Palette, Palette99, PathElement, SVGBackend, WHITE,
};

use crate::report::{Course, RunReport, StepReport};

const SIZE: (u32, u32) = (900, 260);

/// A curve: its name, and points (seconds, value).
type Curve = (String, Vec<(f64, f64)>);

/// The page as HTML.
pub(crate) fn page(report: &RunReport) -> anyhow::Result<String> {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>loadgen</title>\
         <style>body{font:14px/1.5 system-ui,sans-serif;margin:2em;max-width:960px}\
         pre{background:#f4f4f4;padding:1em;overflow:auto}</style><h1>loadgen</h1>",
    );
    write!(html, "<p>{}</p>", escaped(&report.verdict.to_string()))?;
    for step in &report.steps {
        write!(html, "<h2>{} at {}/s</h2><pre>{}</pre>", step.mode, step.rate, escaped(&step.to_string()))?;
        for (title, curves) in charts(step) {
            html.push_str(&chart(title, &curves)?);
        }
    }
    html.push_str("</html>\n");
    Ok(html)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn charts(step: &StepReport) -> Vec<(&'static str, Vec<Curve>)> {
    let course = &step.course;
    let ms = |us: u64| us as f64 / 1_000.0;
    let rows = |value: &dyn Fn(&crate::book::Row) -> f64| {
        let at = |index: usize| (index as f64 + 0.5) * course.row_seconds;
        course.rows.iter().enumerate().map(|(index, row)| (at(index), value(row))).collect::<Vec<_>>()
    };
    let per_second = |count: u64| count as f64 / course.row_seconds;
    vec![
        (
            "Latency, milliseconds",
            vec![
                ("told p50".to_owned(), rows(&|row| ms(row.tolds.value_at_quantile(0.5)))),
                ("told p99".to_owned(), rows(&|row| ms(row.tolds.value_at_quantile(0.99)))),
                ("ack p99".to_owned(), rows(&|row| ms(row.acks.value_at_quantile(0.99)))),
            ],
        ),
        ("Deliveries per second", vec![("deliveries".to_owned(), rows(&|row| per_second(row.told)))]),
        ("CPU, cores", usage(course, &|before, now, seconds| (now.cpu_seconds - before.cpu_seconds) / seconds)),
        ("Memory, MiB", usage(course, &|_, now, _| now.rss_bytes as f64 / 1_048_576.0)),
    ]
}

fn usage(
    course: &Course,
    value: &dyn Fn(&crate::processes::Usage, &crate::processes::Usage, f64) -> f64,
) -> Vec<Curve> {
    let curve = |at: usize| {
        let pairs = course.usage.windows(2).enumerate();
        pairs
            .filter_map(|(index, pair)| Some((index, pair[0].get(at)?, pair[1].get(at)?)))
            .map(|(index, before, now)| {
                ((index as f64 + 1.0) * course.row_seconds, value(before, now, course.row_seconds))
            })
            .collect()
    };
    course.names.iter().enumerate().map(|(at, name)| (name.clone(), curve(at))).collect()
}

fn chart(title: &str, curves: &[Curve]) -> anyhow::Result<String> {
    let points = || curves.iter().flat_map(|(_, points)| points);
    let widest = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let highest = points().map(|(_, y)| *y).fold(0.001, f64::max) * 1.05;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..widest, 0.0..highest)?;
        chart.configure_mesh().light_line_style(WHITE).x_desc("s").draw()?;
        for (index, (name, points)) in curves.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Verdict;

    #[test]
    fn a_page_stands_alone_and_shows_what_was_measured() {
        let report = RunReport { steps: Vec::new(), verdict: Verdict::default(), highest_kept: None };
        let page = page(&report).expect("it can be drawn");
        assert!(page.contains("0 lost"));
        assert!(!page.contains("src=") && !page.contains("href="));
        let drawn = chart("Latency <ms>", &[("told".to_owned(), vec![(0.5, 1.0), (1.5, 3.0)])]).expect("drawn");
        assert!(drawn.starts_with("<svg") && drawn.contains("polyline"));
    }
}
