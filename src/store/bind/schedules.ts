/** `store.schedules`: recurring tasks, and the state of task types. */
import type { Schedule } from '../../core/model.ts'
import { writePriority } from '../driver.ts'
import type { ScheduleStore } from '../interfaces.ts'
import * as taskTypes from '../queue/task-types.ts'
import { first } from '../script.ts'
import * as audit from '../scripts/audit-log.ts'
import * as lists from '../scripts/lists.ts'
import * as schedules from '../scripts/schedules.ts'
import type { Tick } from '../types.ts'
import type { Binding } from './binding.ts'

export function bindSchedules({ read, write, audited, merged, render }: Binding): ScheduleStore {
  return {
    add: ({ schedule, max }) => write(() => schedules.addSchedule(schedule, max)),
    find: (id, clientId) => read(() => first<Schedule>(schedules.readSchedule({ id, clientId }))),
    list: (clientId, limit, after) => read(() => schedules.listSchedules(clientId, limit, after)),
    change: ({ id, clientId, patch, seen, by }) =>
      audited(audit.operatorAuthor(by, clientId), () => schedules.changeSchedule(id, clientId, patch, seen), audit.scheduleRecord(patch)),
    async remove({ id, clientId, by }) {
      const remove = () => schedules.removeSchedule(id, clientId)
      return (await audited(audit.operatorAuthor(by, clientId), remove, audit.removalRecord('schedule.delete', id))) !== null
    },
    findDue: (types, limit, except) => read(() => schedules.findDueSchedules(types, limit, except)),
    tick: merged<Tick, boolean>((items) => schedules.tick(items, render), {
      priority: writePriority.intake,
      size: ({ times, due }) => 600 + times.length * (due.size + 600),
    }),
    listTaskTypes: () => read(() => taskTypes.listQueues()),
    findHolds: (tasks) => read(() => lists.findTaskHolds(tasks)),
    touchTaskTypes: ({ types }) => write(() => taskTypes.touchTypes(types)),
    pauseTaskType: ({ type, paused, by }) => audited(by, () => taskTypes.setTypePaused(type, paused), audit.taskTypeRecord(type, paused)),
  }
}
