/** `store.signing`: signing keys, encrypted values and the installation's own settings. */
import type { SigningStore } from '../interfaces.ts'
import * as audit from '../scripts/audit-log.ts'
import * as clients from '../scripts/clients.ts'
import * as encrypted from '../scripts/encrypted.ts'
import * as keys from '../scripts/signing-keys.ts'
import type { Binding } from './binding.ts'

export function bindSigning({ read, write, audited }: Binding): SigningStore {
  return {
    listKeys: () => read(() => keys.listSigningKeys()),
    addKeys: ({ keys: added }) => write(() => keys.addSigningKeys(added)),
    rotateKeys: async (rotation) =>
      (await audited(audit.SYSTEM_AUTHOR, () => keys.rotateSigningKeys(rotation), audit.keyRotationRecord(rotation))).keys,
    requestRotation: ({ by }) => audited(by, keys.requestSigningKeyRotation, audit.signingKeyRecord('signingKey.rotate', null)),
    revokeKey: ({ id, by }) => audited(by, () => keys.revokeSigningKey(id), audit.signingKeyRecord('signingKey.revoke', id)),
    findEncrypted: (prefix, limit) => read(() => encrypted.findEncrypted(prefix, limit)),
    replaceEncrypted: ({ values }) => write(() => encrypted.replaceEncrypted(values)),
    erasePreviousSecrets: ({ limit }) => write(() => encrypted.erasePreviousSecrets(limit)),
    putSettingIfAbsent: ({ name, value }) => write(() => clients.putSettingIfAbsent(name, value)),
    compareAndSetSetting: ({ name, known, value }) => write(() => clients.compareAndSetSetting(name, known, value)),
  }
}
