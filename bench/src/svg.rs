//! The little SVG that the charts need. Colours follow the reader's light or dark mode.

use std::fmt::Write as _;

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;font-size:13px;fill:#1f2328}\
.title{font-size:16px;font-weight:600}.small{font-size:11.5px;fill:#59636e}.head{font-weight:600}.ours-text{font-weight:600}\
.back{fill:#ffffff}.ours{fill:#1a7f5a}.theirs{fill:#9aa7b4}.limit{fill:#d3dae1}\
.line{stroke:#59636e;stroke-width:1;fill:none}.reset{fill:#b5542c}.faint{stroke:#d3dae1;stroke-width:1;fill:none}.cut{stroke:#ffffff;stroke-width:4}\
.ours-line{stroke:#1a7f5a;stroke-width:1.6;fill:none}.ours-tip{fill:#1a7f5a}.tip{fill:#59636e}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.back{fill:#0d1117}.ours{fill:#3fb68b}\
.theirs{fill:#6b7785}.reset{fill:#e08a5f}.limit{fill:#3a434d}.line{stroke:#9198a1}.faint{stroke:#3a434d}.cut{stroke:#0d1117}\
.ours-line{stroke:#3fb68b}.ours-tip{fill:#3fb68b}.tip{fill:#9198a1}}";

pub(crate) struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

/// Which end of a text its place is.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Self {
            width,
            height,
            title: escape(title),
            body: String::new(),
        };
        svg.rect(0.0, 0.0, width, height, "back");
        svg.text(24.0, 32.0, title, "title", Anchor::Start);
        svg
    }

    pub(crate) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        self.push(&format!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2"/>"#
        ));
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.push(&format!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// A line with a head at its end.
    pub(crate) fn arrow(&mut self, from: (f64, f64), to: (f64, f64), line: &str, tip: &str) {
        self.line(from, to, line);
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy).max(1.0);
        let (ux, uy) = (dx / length, dy / length);
        let corner = |side: f64| (to.0 - 8.0 * ux - side * 3.5 * uy, to.1 - 8.0 * uy + side * 3.5 * ux);
        let ((ax, ay), (bx, by)) = (corner(1.0), corner(-1.0));
        self.push(&format!(
            r#"<polygon class="{tip}" points="{:.1},{:.1} {ax:.1},{ay:.1} {bx:.1},{by:.1}"/>"#,
            to.0, to.1
        ));
    }

    pub(crate) fn text(&mut self, x: f64, y: f64, text: &str, class: &str, anchor: Anchor) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.push(&format!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    fn push(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    pub(crate) fn finish(self) -> String {
        let Self {
            width,
            height,
            title,
            body,
        } = self;
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n{body}</svg>\n"
        );
        text
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
