"""Writes the dashboards of ``dashboards.toml`` as Grafana's JSON, beside that file.

A test holds the files equal to the description, and a real Prometheus answers every query.
"""

import itertools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardLinkType, DataSourceRef

FOLDER = Path(__file__).parent
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH, HEIGHT = 12, 8
DESCRIPTION = tomllib.loads((FOLDER / "dashboards.toml").read_text())


def queries() -> Iterator[tuple[str, str]]:
    """Every query of every panel and annotation, with a name."""
    for board in DESCRIPTION["dashboard"]:
        for panel in board["panel"]:
            for legend, query in panel["queries"]:
                yield f"{board['uid']}: {panel['title']} ({legend})", query
    for annotation in DESCRIPTION["annotation"]:
        yield f"annotation: {annotation['name']}", annotation["query"]


def files() -> dict[Path, str]:
    """The content of every dashboard's file."""
    return {FOLDER / f"{board['uid']}.json": _json(board) for board in DESCRIPTION["dashboard"]}


def _json(board: dict[str, Any]) -> str:
    builder = (
        dashboard.Dashboard(board["title"])
        .uid(board["uid"])
        .tags(["retrail"])
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .link(
            dashboard.DashboardLink("Retrail")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["retrail"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    for annotation in DESCRIPTION["annotation"]:
        builder.annotation(
            dashboard.AnnotationQuery()
            .name(annotation["name"])
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(annotation["color"])
            .expr(annotation["query"])
        )
    number = itertools.count(1)
    for row, panels in itertools.groupby(board["panel"], lambda panel: str(panel["row"])):
        builder.with_row(dashboard.Row(row).id(next(number)))
        for panel in panels:
            builder.with_panel(_graph(panel).id(next(number)))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def _graph(panel: dict[str, Any]) -> timeseries.Panel:
    graph = (
        timeseries.Panel()
        .title(panel["title"])
        .description(panel["meaning"])
        .unit(panel.get("unit", "short"))
        .min(0)
        .datasource(DATASOURCE)
        .span(WIDTH)
        .height(HEIGHT)
    )
    for legend, query in panel["queries"]:
        graph.with_target(
            prometheus.Dataquery().datasource(DATASOURCE).expr(query).legend_format(legend)
        )
    return graph


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content)
