//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use super::Histogram;

/// What the page says of itself.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that is being written, family by family.
#[derive(Debug, Default)]
pub struct Page(String);

/// The rows of one family.
#[derive(Debug)]
pub struct Rows<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Page {
    /// Begins a family of values that only rise; its name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Rows<'_> {
        self.family(name, "counter", help)
    }

    /// Begins a family of values that rise and fall.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Rows<'_> {
        self.family(name, "gauge", help)
    }

    /// Writes a histogram.
    pub fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        let counts = histogram.counts();
        let page = self.family(name, "histogram", help).page;
        for (bound, within) in histogram.bounds().iter().zip(&counts.within) {
            let _infallible = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {within}");
        }
        let (count, sum) = (counts.count, counts.sum_s);
        let _infallible =
            writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }

    /// The page.
    pub fn finish(self) -> String {
        self.0
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Rows<'_> {
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Rows { page: &mut self.0, name }
    }
}

impl Rows<'_> {
    /// A value without labels.
    pub fn value(&mut self, value: impl Display) {
        self.row(&[], value);
    }

    /// A value with labels.
    pub fn row(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.page.push_str(self.name);
        for (place, (name, text)) in labels.iter().enumerate() {
            self.page.push(if place == 0 { '{' } else { ',' });
            self.page.push_str(name);
            self.page.push_str("=\"");
            text.chars().for_each(|character| match character {
                '\\' => self.page.push_str("\\\\"),
                '"' => self.page.push_str("\\\""),
                '\n' => self.page.push_str("\\n"),
                other => self.page.push(other),
            });
            self.page.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _infallible = writeln!(self.page, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_page_is_as_the_format_says() {
        let mut page = Page::default();
        page.gauge("a", "First.").value(3);
        let mut rows = page.counter("b_total", "Second.");
        rows.row(&[("x", "1"), ("y", "a\\b\"c\nd")], 7);
        rows.row(&[("x", "2")], 0.5);
        let histogram = Histogram::new(&[0.1, 2.0]);
        histogram.observe(Duration::from_secs(1));
        page.histogram("c_seconds", "Third.", &histogram);
        let expected = "# HELP a First.\n# TYPE a gauge\na 3\n\
            # HELP b_total Second.\n# TYPE b_total counter\n\
            b_total{x=\"1\",y=\"a\\\\b\\\"c\\nd\"} 7\nb_total{x=\"2\"} 0.5\n\
            # HELP c_seconds Third.\n# TYPE c_seconds histogram\n\
            c_seconds_bucket{le=\"0.1\"} 0\nc_seconds_bucket{le=\"2\"} 1\nc_seconds_bucket{le=\"+Inf\"} 1\n\
            c_seconds_sum 1\nc_seconds_count 1\n";
        assert_eq!(page.finish(), expected);
    }
}
