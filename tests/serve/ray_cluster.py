"""A Ray cluster of two nodes on loopback, as a process: prints its address, and ends with its input."""

import sys

from ray.cluster_utils import Cluster

from spoutnik.serve.ray_backend import OBJECT_STORE_BYTES

node = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
