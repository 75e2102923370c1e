// What is used of prom-client, as a module that can be loaded late. Only two files of it: its index also
// loads cluster, node:https and a push client (15 MiB and 52 ms instead of 9 MiB and 30 ms, Node 26.10).
export { default as collectDefaultMetrics } from 'prom-client/lib/defaultMetrics.js'
export { default as Registry } from 'prom-client/lib/registry.js'
