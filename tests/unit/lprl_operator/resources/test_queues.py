"""What batch schedulers read: from the job to its RayCluster, to its Jobs and to its pods."""


def by_kind(documents, kind):
    return [d for (k, _), d in documents.items() if k == kind]


QUEUED = {"kueue.x-k8s.io/queue-name": "q", "kueue.x-k8s.io/priority-class": "high", "kueue.x-k8s.io/max-exec-time-seconds": "3600"}


def kueue_labels(document):
    return {k: v for k, v in document["metadata"]["labels"].items() if k.startswith("kueue.x-k8s.io/")}


def test_queue_labels_reach_what_is_queued(rendered):
    labels = {"kueue.x-k8s.io/queue-name": "q", "kai.scheduler/queue": "k", "ray.io/priority-class-name": "p", "mine": "x"}
    documents = rendered(labels=labels)
    for kind in ("Job", "RayCluster"):
        for found in by_kind(documents, kind):
            assert {k: v for k, v in found["metadata"]["labels"].items() if k in labels} == {k: v for k, v in labels.items() if k != "mine"}


def test_inspection_and_conversion_have_a_queue_of_their_own_by_a_field(rendered):
    documents = rendered(labels=QUEUED, conversion={"volume": "models", "queueName": "small"})
    assert [kueue_labels(c) for c in by_kind(documents, "RayCluster")] == [QUEUED]
    theirs = {"kueue.x-k8s.io/queue-name": "small", "kueue.x-k8s.io/priority-class": "high"}
    jobs = by_kind(documents, "Job")
    assert len(jobs) >= 3 and all(kueue_labels(job) == theirs for job in jobs)
    assert kueue_labels(by_kind(rendered(conversion={"volume": "models", "queueName": "small"}), "Job")[0]) == {
        "kueue.x-k8s.io/queue-name": "small"
    }


def test_a_limit_of_time_is_the_trainings_alone(rendered):
    theirs = {k: v for k, v in QUEUED.items() if "max-exec-time" not in k}
    assert all(kueue_labels(job) == theirs for job in by_kind(rendered(labels=QUEUED), "Job"))


def test_what_kueue_reads_from_pods_is_put_on_worker_pods(rendered):
    note = {"kueue.x-k8s.io/podset-required-topology": "example.com/rack"}
    (cluster,) = by_kind(rendered(annotations=note), "RayCluster")
    assert not any(k.startswith("kueue.x-k8s.io/") for k in cluster["metadata"]["annotations"])
    spec = cluster["spec"]
    assert all(note.items() <= g["template"]["metadata"]["annotations"].items() for g in spec["workerGroupSpecs"])
    assert not note.keys() & spec["headGroupSpec"]["template"]["metadata"].get("annotations", {}).keys()
    own = {"kueue.x-k8s.io/podset-preferred-topology": "example.com/block"}
    (cluster,) = by_kind(rendered(annotations=note, podTemplate={"workers": {"annotations": own}}), "RayCluster")
    found = cluster["spec"]["workerGroupSpecs"][0]["template"]["metadata"]["annotations"]
    assert {k: v for k, v in found.items() if k.startswith("kueue")} == own, "Kueue takes one of them"


def test_what_kueue_offers_that_is_not_for_a_gang_reaches_nothing(rendered):
    keys = dict.fromkeys(("kueue.x-k8s.io/job-min-parallelism", "kueue.x-k8s.io/elastic-job", "kueue.x-k8s.io/prebuilt-workload-name"), "1")
    for document in rendered(labels={**QUEUED, **keys}, annotations=keys).values():
        meta = document["metadata"]
        assert not keys.keys() & {*meta["labels"], *meta.get("annotations", {})}, meta["name"]
