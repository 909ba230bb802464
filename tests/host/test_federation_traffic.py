"""Bytes on links over rounds, nodes and restarts of the host."""

from __future__ import annotations

import json

from fedtiny.federation.tasks import LinkBytes
from fedtiny.federation.traffic import Traffic, since
from fedtiny_export.masks import entropy_bytes


def traffic() -> Traffic:
    return Traffic(dense_blob_bytes=1000, dense_values_bytes=800)


def link(down: int, up: int) -> LinkBytes:
    return LinkBytes(down={"values": down, "control": 1}, up={"moments": up})


def test_a_round_has_what_came_since_the_one_before() -> None:
    before = {"n1": link(100, 50)}
    after = {"n1": link(130, 50), "n2": link(7, 3)}
    assert since(before, after) == {
        "n1": LinkBytes(down={"values": 30}, up={}),
        "n2": LinkBytes(down={"values": 7, "control": 1}, up={"moments": 3}),
    }


def test_bytes_on_links_go_on_where_the_host_before_stopped() -> None:
    """The state travels as JSON; the links of a new process count from 0, and a node may have left the fleet."""
    first = traffic()
    first.heard({"n1": link(100, 50), "n2": link(10, 5)})
    first.changed_masks([(1000, 100, 70)])
    second = traffic()
    second.resume(json.loads(json.dumps(first.tally())))
    assert second.link == first.link
    second.heard({"n1": link(20, 0)})
    assert second.link["n1"].down == {"values": 120, "control": 2}
    assert second.link["n1"].up == {"moments": 50}
    assert second.link["n2"] == link(10, 5)
    assert (second.mask_bytes, second.mask_entropy) == (70, entropy_bytes(1000, 100))


def test_a_state_that_is_restored_in_the_same_process_takes_no_byte_off_the_links() -> None:
    """A quorum was lost: the round is done again, and what it cost stays counted."""
    here = traffic()
    here.heard({"n1": link(100, 50)})
    saved = here.tally()
    here.heard({"n1": link(140, 60)})
    here.resume(saved)
    here.heard({"n1": link(150, 60)})
    assert here.link == {"n1": link(150, 60)}


def test_a_state_of_before_there_were_links_is_taken() -> None:
    old = traffic()
    old.resume({"down": {"values": 5}, "up": {}, "dense_fedavg": 9})
    assert (old.down, old.link, old.mask_bytes) == (5, {}, 0)
