//! A dashboard as a list of rows and panels, and how Grafana (10 and later) writes it. Panels flow from left to right and
//! into the next line by themselves.

use serde_json::{Value, json};

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

pub(super) struct Dashboard {
    /// Of the file, and of its address in Grafana.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    /// Whose label `topic` the variable `$topic` offers; `None` has no such variable.
    pub(super) topics_of: Option<&'static str>,
    pub(super) rows: Vec<Row>,
}

pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Panel>,
}

pub(super) struct Panel {
    kind: &'static str,
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    width: u32,
    height: u32,
    /// Expression, and the name of its curves.
    targets: Vec<(String, &'static str)>,
    /// From which value on it is orange, and red.
    warn_at: Option<f64>,
    alarm_at: Option<f64>,
}

/// Curves over time; `unit` in Grafana's words: `cps`, `s`, `bytes`, `percentunit`, `short`.
pub(super) fn curves(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    let (warn_at, alarm_at) = (None, None);
    Panel { kind: "timeseries", title, description, unit, width: 8, height: 8, targets: Vec::new(), warn_at, alarm_at }
}

/// One large figure: that of now.
pub(super) fn figure(title: &'static str, unit: &'static str, description: &'static str) -> Panel {
    Panel { kind: "stat", width: 4, height: 4, ..curves(title, unit, description) }
}

impl Panel {
    pub(super) fn of(mut self, expression: &str, legend: &'static str) -> Self {
        // The sources are wrapped for people.
        self.targets.push((expression.split_whitespace().collect::<Vec<_>>().join(" "), legend));
        self
    }

    pub(super) fn wide(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    pub(super) fn warn_at(mut self, value: f64) -> Self {
        self.warn_at = Some(value);
        self
    }

    pub(super) fn alarm_at(mut self, value: f64) -> Self {
        self.alarm_at = Some(value);
        self
    }

    fn json(&self, id: u32, x: u32, y: u32) -> Value {
        let letters = (b'A'..=b'Z').map(|letter| char::from(letter).to_string());
        let targets = self.targets.iter().zip(letters).map(|((expression, legend), letter)| {
            json!({ "refId": letter, "expr": expression, "legendFormat": legend, "datasource": datasource() })
        });
        let mut steps = vec![json!({ "color": "green", "value": null })];
        steps.extend(self.warn_at.map(|value| json!({ "color": "orange", "value": value })));
        steps.extend(self.alarm_at.map(|value| json!({ "color": "red", "value": value })));
        let style = if steps.len() > 1 && self.kind == "timeseries" { "dashed" } else { "off" };
        let custom = json!({ "fillOpacity": 5, "showPoints": "never", "thresholdsStyle": { "mode": style } });
        let options = match self.kind {
            "stat" => {
                json!({ "reduceOptions": { "calcs": ["lastNotNull"] }, "colorMode": "value", "graphMode": "area" })
            }
            _ => json!({ "legend": { "displayMode": "list", "placement": "bottom" }, "tooltip": { "mode": "multi" } }),
        };
        json!({
            "id": id, "type": self.kind, "title": self.title, "description": self.description,
            "datasource": datasource(),
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height },
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit, "min": 0, "custom": custom,
                    "thresholds": { "mode": "absolute", "steps": steps },
                },
                "overrides": [],
            },
            "options": options,
            "targets": targets.collect::<Vec<_>>(),
        })
    }
}

impl Dashboard {
    /// The text of the file.
    pub(super) fn text(&self) -> String {
        format!("{:#}\n", self.json())
    }

    fn json(&self) -> Value {
        let mut panels = Vec::new();
        let (mut id, mut y) = (0, 0);
        let mut next_id = || {
            id += 1;
            id
        };
        for row in &self.rows {
            let place = json!({ "x": 0, "y": y, "w": COLUMNS, "h": 1 });
            let heading = json!({ "id": next_id(), "type": "row", "title": row.title, "collapsed": false,
                "gridPos": place, "panels": [] });
            panels.push(heading);
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in &row.panels {
                if x + panel.width > COLUMNS {
                    (x, y) = (0, y + height);
                }
                panels.push(panel.json(next_id(), x, y));
                (x, height) = (x + panel.width, panel.height);
            }
            y += height;
        }
        json!({
            "uid": self.name, "title": self.title, "description": self.description, "tags": ["millrace"],
            "schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "refresh": "10s",
            "timezone": "utc", "time": { "from": "now-1h", "to": "now" },
            "annotations": { "list": [] },
            "links": [{ "type": "dashboards", "tags": ["millrace"], "asDropdown": false, "title": "Millrace",
                "includeVars": true, "keepTime": true }],
            "templating": { "list": self.variables() },
            "panels": panels,
        })
    }

    fn variables(&self) -> Vec<Value> {
        let mut variables = vec![json!({ "name": "datasource", "label": "Prometheus", "type": "datasource",
            "query": "prometheus", "current": {}, "hide": 0 })];
        variables.extend(self.topics_of.map(|metric| {
            let query = format!("label_values({metric}, topic)");
            json!({ "name": "topic", "label": "Topic", "type": "query", "datasource": datasource(),
                "definition": query, "query": { "query": query, "refId": "topic" }, "refresh": 2, "sort": 1,
                "multi": true, "includeAll": true, "allValue": ".*",
                "current": { "selected": true, "text": ["All"], "value": ["$__all"] } })
        }));
        variables
    }
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}
