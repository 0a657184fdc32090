import { storeContract } from './contract/suite.ts'

storeContract('sqlite')
