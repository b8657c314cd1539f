/**
 * @since 0.1.0
 */
export * as Authorize from "./Authorize.js"
/**
 * @since 0.1.0
 */
export * as Connection from "./Connection.js"
/**
 * @since 0.1.0
 */
export * as EventLog from "./EventLog.js"
/**
 * @since 0.1.0
 */
export * as HubClient from "./HubClient.js"
/**
 * @since 0.1.0
 */
export * as HubStatus from "./HubStatus.js"
/**
 * @since 0.1.0
 */
export * as Idempotency from "./Idempotency.js"
/**
 * @since 0.1.0
 */
export * as Keepalive from "./Keepalive.js"
/**
 * @since 0.1.0
 */
export * as Namespace from "./Namespace.js"
/**
 * @since 0.1.0
 */
export * as NamespacePattern from "./NamespacePattern.js"
/**
 * @since 0.1.0
 */
export * as NodeBus from "./NodeBus.js"
/**
 * @since 0.1.0
 */
export * as Nodes from "./Nodes.js"
/**
 * @since 0.1.0
 */
export * as SseChannel from "./SseChannel.js"
/**
 * @since 0.1.0
 */
export * as SseClient from "./SseClient.js"
/**
 * @since 0.1.0
 */
export * as SseConfig from "./SseConfig.js"
/**
 * @since 0.1.0
 */
export * as SseError from "./SseError.js"
/**
 * @since 0.1.0
 */
export * as SseEvent from "./SseEvent.js"
/**
 * @since 0.1.0
 */
export * as SseHub from "./SseHub.js"
/**
 * @since 0.1.0
 */
export * as SseMetrics from "./SseMetrics.js"
/**
 * @since 0.1.0
 */
export * as SseRoutes from "./SseRoutes.js"
/**
 * @since 0.1.0
 */
export * as SseTest from "./SseTest.js"
/**
 * @since 0.1.0
 */
export * as SseTracing from "./SseTracing.js"
/**
 * @since 0.1.0
 */
export * as Tickets from "./Tickets.js"
/**
 * @since 0.1.0
 */
export { SseLayer } from "./SseHub.js"
