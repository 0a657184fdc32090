import { storeContract } from './contract/suite.ts'

storeContract('postgres')
