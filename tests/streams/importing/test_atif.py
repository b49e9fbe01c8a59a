"""Agent Trajectory Interchange Format, to exact pairs."""

import json

from tests.streams.importing.logs import HELPED, NEED, PLAN, REJECTED, imported, mined, written


def agent(number, message="", reasoning=None, calls=(), results=()):
    step = {"step_id": number, "source": "agent", "message": message}
    if reasoning is not None:
        step["reasoning_content"] = reasoning
    if calls:
        step["tool_calls"] = [
            {"tool_call_id": call_id, "function_name": name, "arguments": arguments}
            for call_id, name, arguments in calls
        ]
        step["observation"] = {
            "results": [
                {"source_call_id": call_id, "content": content} for call_id, content in results
            ]
        }
    return step


def hits(*doc_ids):
    return json.dumps({"hits": [{"docid": doc_id} for doc_id in doc_ids]})


def trajectory(**fields):
    return {
        "schema_version": "ATIF-v1.5",
        "session_id": "025B810F",
        "agent": {"name": "harbor-agent", "version": "1.0.0", "model_name": "gemini-2.5"},
        "steps": [
            {"step_id": 1, "source": "system", "message": "Use the tools."},
            {"step_id": 2, "source": "user", "message": "When was the harbour lamp first lit?"},
            agent(3, "I search.", PLAN, [("c1", "search", {"query": "harbour lamp year"})],
                  [("c1", hits("d1", "d2", "d3"))]),
            agent(4, "", None, [("c2", "open_document", {"id": "d1"})], [("c2", "Tides")]),
            agent(5, REJECTED, None, [("c3", "search", {"query": "harbour lamp lit"})],
                  [("c3", [{"type": "text", "text": hits("d4", "d2")}])]),
            agent(6, "", None, [("c4", "open_document", {"id": "d2"})], [(None, "Lit in 1871.")]),
            agent(7, "1871", HELPED),
        ],
        "final_metrics": {"total_steps": 7},
    } | fields  # fmt: skip


def test_a_trajectory(tmp_path):
    path = written(tmp_path, trajectory(), name="trajectory.json")
    assert mined(path) == NEED
    [events], importer = imported(path)
    assert list(importer.report.formats) == ["atif"]
    assert {event.trajectory_id for event in events} == {"025B810F"}
    assert (events[0].agent.name, events[0].agent.model) == ("harbor-agent", "gemini-2.5")
    assert type(events[-1]).__name__ == "End"


def test_subagents_are_trajectories_and_copied_steps_are_left_out(tmp_path):
    sub = trajectory(schema_version="ATIF-v1.7", trajectory_id="sub", session_id="s")
    main = trajectory(schema_version="ATIF-v1.7", subagent_trajectories=[sub])
    for step in main["steps"]:
        step["is_copied_context"] = True
    main["steps"].append(agent(8, "1871"))
    path = written(tmp_path, main)
    events, _ = imported(path)
    assert [one[0].trajectory_id for one in events] == ["025B810F", "sub"]
    assert mined(path) == NEED


def test_another_major_version_is_refused(tmp_path):
    path = written(tmp_path, trajectory(schema_version="ATIF-v2.0"))
    events, importer = imported(path, format="atif")
    assert events == []
    assert "its schema_version is not ATIF-v1.x" in importer.report.problems[0][1]
